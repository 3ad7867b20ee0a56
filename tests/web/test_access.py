"""Who gets in, and what is turned away before a handler sees it."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.web.serving import JSON, ORIGIN, TIERS, URL, Person, client_of, make_store

from trivium.errors import UserError
from trivium.feedback.rankings.store import Store
from trivium.web.access import Buckets, csrf_token
from trivium.web.ranking import create_app
from trivium.web.settings import ServerSettings


def test_the_link_sets_a_strict_cookie_and_leaves_the_address(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        answer = client.get(f"/enter/{tokens['mira']}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "secure" not in cookie
        assert client.get("/", follow_redirects=False).headers["location"] == "/rank"


def test_behind_https_the_cookie_is_kept_to_it(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    settings = ServerSettings(public_url="https://rank.example.org/")
    with client_of(place, settings) as client:
        answer = client.get(f"/enter/{tokens['mira']}", follow_redirects=False)
        assert "Secure" in answer.headers["set-cookie"]
        assert client.get("/health", headers={"Host": "rank.example.org"}).status_code == 200


def test_a_link_on_another_site_works_although_the_cookie_is_strict(tmp_path: Path) -> None:
    """A browser sends no strict cookie after a redirect that began elsewhere: our own page has to ask."""
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        elsewhere = {"Sec-Fetch-Site": "cross-site"}
        answer = client.get(f"/enter/{tokens['mira']}", headers=elsewhere, follow_redirects=False)
        assert answer.status_code == 200 and answer.headers["refresh"] == "0; url=/rank"
        assert "set-cookie" in answer.headers
        client.cookies.clear()
        assert client.get("/rank", headers=elsewhere).headers["refresh"] == "0; url=/rank"
        assert client.get("/rank", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 403


def test_without_a_valid_token_nothing_is_shown(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        for path in ("/", "/rank", "/back", "/guidelines", "/admin", "/admin/export/rankings.jsonl"):
            answer = client.get(path)
            assert answer.status_code == 403 and "Open the link" in answer.text
        assert client.get("/enter/wrong").status_code == 403
        client.cookies.set(next(iter(_cookie(client, tokens["mira"]))), "forged")
        assert client.get("/rank").status_code == 403


def _cookie(client: httpx.Client, token: str) -> dict[str, str]:
    client.get(f"/enter/{token}", follow_redirects=False)
    found = dict(client.cookies)
    client.cookies.clear()
    return found


def test_revoking_ends_the_session_at_once_and_a_new_link_opens_another(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client, Store.open(place) as store:
        mira = Person(client, tokens["mira"])
        form = mira.form()
        store.revoke("mira")
        assert client.get("/rank").status_code == 403
        assert client.post("/rank", data={**form, "tier-0": "1", "tier-1": "2"}, headers=JSON).status_code == 403
        assert client.get(f"/enter/{tokens['mira']}").status_code == 403
        Person(client, store.new_token("mira")).submit(**TIERS)
        assert len(list(store.rankings())) == 1


@pytest.mark.parametrize("csrf", ["", "wrong", "é", csrf_token("another")])
def test_a_wrong_csrf_token_is_refused_and_the_form_keeps_its_values(tmp_path: Path, csrf: str) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        answer = Person(client, tokens["mira"]).submit(**TIERS, csrf=csrf, note="kept")
        assert answer.status_code == 403 and "another session" in answer.text and "kept" in answer.text
    with Store.open(place) as store:
        assert not list(store.rankings())


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Origin": URL}, True),
        ({"Origin": "http://127.0.0.1:9000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "file://127.0.0.1:8000"}, False),
        ({"Origin": "http://["}, False),
        ({"Referer": f"{URL}/rank"}, True),
        ({"Referer": "http://evil.example/rank"}, False),
        ({}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": URL}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": URL}, False),
    ],
)
def test_a_form_must_come_from_our_own_page(tmp_path: Path, headers: dict[str, str], allowed: bool) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        answer = Person(client, tokens["mira"]).submit(**TIERS, headers=headers)
        assert answer.status_code == (303 if allowed else 403)


def test_a_proxy_that_renames_the_host_may_be_named(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place, ServerSettings(public_url="https://rank.example.org")) as client:
        form = {"tier-0": "1", "tier-1": "2"}
        cookie = "; ".join(f"{name}={value}" for name, value in _cookie(client, tokens["mira"]).items())
        cookie = cookie or client.get(f"/enter/{tokens['mira']}", follow_redirects=False).headers["set-cookie"]
        headers = {"Origin": "https://rank.example.org", "Cookie": cookie.partition(";")[0]}
        answer = client.post("/rank", data=form, headers=headers)
        assert answer.status_code == 403 and "another session" in answer.text  # past the origin, stopped by CSRF


@pytest.mark.parametrize(
    ("host", "settings", "allowed"),
    [
        ("127.0.0.1:8000", {}, True),
        ("localhost", {}, True),
        ("[::1]:8000", {}, True),
        ("LOCALHOST:1", {}, True),
        ("evil.example", {}, False),
        ("127.0.0.1.evil.example", {}, False),
        ("192.168.1.5:8000", {}, False),
        ("", {}, False),
        ("192.168.1.5:8000", {"host": "0.0.0.0"}, True),
        ("evil.example", {"host": "0.0.0.0"}, False),
        ("rank.lan", {"names": ("rank.lan",)}, True),
        ("fd00::1", {"host": "fd00::1"}, False),
        ("[fd00::1]:8000", {"host": "fd00::1"}, True),
    ],
)
def test_a_name_that_was_pointed_at_us_is_refused(
    tmp_path: Path, host: str, settings: dict[str, object], allowed: bool
) -> None:
    place, _ = make_store(tmp_path, tasks=0)
    with client_of(place, ServerSettings(**settings)) as client:  # type: ignore[arg-type]
        assert client.get("/health", headers={"Host": host}).status_code == (200 if allowed else 400)


def test_a_public_address_that_is_none() -> None:
    with pytest.raises(UserError, match=r"https://rank\.example\.org"):
        ServerSettings(public_url="rank.example.org")


@pytest.mark.parametrize("path", ["/rank", "/health", "/nowhere", "/static/style.css", "/enter/wrong"])
def test_every_response_has_the_security_headers(tmp_path: Path, path: str) -> None:
    place, _ = make_store(tmp_path)
    with client_of(place) as client:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        # the address of a link is a token, which no page and no file asked for next need hear of
        assert headers["referrer-policy"] == ("no-referrer" if path.startswith("/enter/") else "same-origin")
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_a_form_that_is_too_large_is_refused_while_it_is_read(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    settings = ServerSettings(body_bytes=64 * 1024)
    with client_of(place, settings) as client:
        mira = Person(client, tokens["mira"])
        answer = mira.submit(**TIERS, edited="x" * 70_000, headers=JSON)
        assert answer.status_code == 413 and "64 KiB" in answer.json()["error"]
        for length in ("-1", "1e3", "9" * 30):
            answer = client.post("/rank", content=b"", headers={**ORIGIN, "Content-Length": length})
            assert answer.status_code == 413


@pytest.mark.anyio
async def test_a_body_without_a_length_is_cut_off(tmp_path: Path) -> None:
    place, _ = make_store(tmp_path)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64:
            sent += 1
            yield b"x" * 16_384

    transport = httpx.ASGITransport(create_app(place, ServerSettings(body_bytes=64 * 1024)))
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        answer = await client.post("/rank", content=endless(), headers=ORIGIN)
    assert answer.status_code == 413 and sent <= 6


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_one_person_cannot_take_all_of_the_server(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place, ServerSettings(requests_a_minute=80)) as client:
        Person(client, tokens["mira"])
        codes = [client.get("/guidelines").status_code for _ in range(25)]
        assert codes[:10] == [200] * 10 and codes[-1] == 429
        answer = client.get("/guidelines", headers=JSON)
        assert int(answer.headers["retry-after"]) >= 1 and answer.json()["ok"] is False
        client.cookies.clear()
        Person(client, tokens["tom"])
        assert client.get("/guidelines").status_code == 200


def test_guessing_tokens_is_slowed_and_locks_nobody_out(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place, ServerSettings(failures_a_minute=5)) as client:
        Person(client, tokens["mira"])
        codes = [client.get(f"/enter/guess-{number}").status_code for number in range(8)]
        assert codes == [403] * 5 + [429] * 3
        assert client.get("/guidelines").status_code == 200
        assert client.get(f"/enter/{tokens['mira']}", follow_redirects=False).status_code == 303


def test_buckets_fill_again_and_forget_the_oldest() -> None:
    buckets = Buckets(a_minute=60, burst=2, size=2)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0, 0, 1]
    assert buckets.take("a", 0.5) == 0.5 and buckets.take("a", 1.0) == 0
    assert buckets.wait("a", 1.0) == 1
    for key in ("b", "c"):
        buckets.take(key, 1.0)
    assert set(buckets.levels) == {"b", "c"}


def test_a_slow_body_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from trivium.web import access

    monkeypatch.setattr(access, "BODY_SECONDS", 0.05)
    place, _ = make_store(tmp_path)
    app = create_app(place)
    sent: list[dict] = []

    async def receive() -> dict:
        await asyncio.sleep(5)
        return {"type": "http.request"}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/rank", "raw_path": b"/rank", "query_string": b""}
    scope |= {"headers": [(b"host", b"127.0.0.1:8000"), (b"origin", URL.encode())], "client": ("127.0.0.1", 1)}
    scope |= {"scheme": "http", "server": ("127.0.0.1", 8000), "http_version": "1.1", "root_path": ""}
    begun = time.monotonic()
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408 and time.monotonic() - begun < 4
