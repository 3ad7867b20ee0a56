"""Every page with axe-core in light and dark, and at the width of a small phone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.web.page_server import CHROMIUM, Site, add_task, need_chromium, site

need_chromium()
axe_package = pytest.importorskip("axe_playwright_python.sync_playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402


@dataclass
class Visit:
    site: Site
    browser: Browser
    link: str
    task: str


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """An admin's view of a store in which something has happened; nine answers of which one never breaks a line."""
    with site(tmp_path_factory.mktemp("rankings")) as running, sync_playwright() as playwright:
        store = running.store
        answers = ("w" * 400, "שלום, " * 30, "", *(f"Answer of kind {kind}" for kind in "abcdef"))
        long_question = "Why? " * 60 + "x" * 300
        task = add_task(store, long_question, answers, priority=1.0)  # it comes first
        for name in ("ada", "bob"):
            store.add_annotator(name)
            for turn in range(4):
                given = store.assign(name, random_share=0.0)
                assert given is not None
                tiers = [number % 3 for number in range(len(given.task.responses))]
                extra = {"edited": "Better", "note": "n" * 200, "strength": 2.0}
                if (name, turn) == ("bob", 3):
                    extra = {"flags": ("phone number",)}  # held back from then on
                store.submit(given.id, name, f"{name}-{turn}-key", tiers=tiers, seconds=12.0, **extra)
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield Visit(running, browser, running.person("eve", role="admin"), task)
        browser.close()


def violations(page: Page, scheme: str) -> list[str]:
    """Serious and critical ones, and all of WCAG 2.2 AA, as readable lines. Only colours differ in dark."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": ["color-contrast"]} if scheme == "dark" else {})
    found = axe_package.Axe().run(page, options=options).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical") or "wcag22aa" in one["tags"]]
    return [f"{one['id']}: {json.dumps([node['target'] for node in one['nodes']][:3])}" for one in grave]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave(visit: Visit, scheme: str) -> None:
    context = visit.browser.new_context(
        color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1280, "height": 900}
    )  # type: ignore[arg-type]
    page = context.new_page()
    found: dict[str, list[str]] = {}
    page.goto(f"{visit.site.url}/rank")
    expect(page.get_by_role("heading", level=1)).to_have_text("No access")
    found["message"] = violations(page, scheme)
    page.goto(visit.link)
    found["rank"] = violations(page, scheme)
    for key in ("a", "1", "b", "1", "c", "2"):
        page.keyboard.press(key)
    for fold in page.locator("summary").all():
        fold.click()
    page.get_by_role("button", name="Skip without ranking").click()
    found["rank, filled in, with an error"] = violations(page, scheme)
    page.keyboard.press("?")
    found["keys"] = violations(page, scheme)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compare two").click()
    found["compare"] = violations(page, scheme)
    for path in ("/guidelines", "/admin", f"/admin/tasks/{visit.task}"):
        page.goto(visit.site.url + path)
        found[path] = violations(page, scheme)
    assert {name: lines for name, lines in found.items() if lines} == {}
    context.close()


def test_a_phone_scrolls_one_way_and_has_room_for_fingers(visit: Visit) -> None:
    context = visit.browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(visit.link)
    for path in ("/rank", "/guidelines", "/admin", f"/admin/tasks/{visit.task}"):
        page.goto(visit.site.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        small = page.evaluate(
            """[...document.querySelectorAll("button, select, textarea, summary, .rank, .check, nav a, .button")]
               .filter((one) => one.checkVisibility())
               .map((one) => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
               .filter(([_, box]) => box.width < 24 || box.height < 24)
               .map(([text, box]) => `${text} ${box.width}x${box.height}`)"""
        )
        assert small == [], path
    context.close()


def test_the_theme_is_remembered(visit: Visit) -> None:
    context = visit.browser.new_context(color_scheme="light")
    page = context.new_page()
    page.goto(visit.link)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark theme").click()
    page.goto(f"{visit.site.url}/guidelines")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.get_by_role("button", name="Light theme").click()
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light
    context.close()
