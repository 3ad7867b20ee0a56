"""A small store behind a server, and an annotator with a browser's manners."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.record import Response
from trivium.feedback.rankings.store import Store
from trivium.web.ranking import create_app
from trivium.web.settings import ServerSettings

URL = "http://127.0.0.1:8000"
ORIGIN = {"Origin": URL}
JSON = {**ORIGIN, "Accept": "application/json"}


def prompt_of(number: int) -> Prompt:
    return Prompt(f"prompt-{number}", (Message("user", f"Question {number}?"),))


def answers_of(number: int, count: int = 3) -> list[Response]:
    return [Response(f"Answer {place} to {number}", "some-model") for place in range(count)]


def make_store(folder: Path, tasks: int = 3, answers: int = 3, **options: Any) -> tuple[Path, dict[str, str]]:
    """A store with tasks, and the tokens of mira, tom (annotators) and ada (admin)."""
    place = folder / "rankings.db"
    with Store.open(place) as store:
        for number in range(tasks):
            store.add_task(prompt_of(number), answers_of(number, answers), **options)
        tokens = {name: store.add_annotator(name) for name in ("mira", "tom")}
        tokens["ada"] = store.add_annotator("ada", role="admin")
    return place, tokens


class Person:
    """An annotator at the page."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client, self.token = client, token
        assert client.get(f"/enter/{token}", follow_redirects=False).status_code == 303

    def displayed(self, assignment: str) -> tuple[int, ...]:
        """The order in which the page shows the answers; the page itself does not tell it."""
        store: Store = self.client.app.state.server.store  # type: ignore[attr-defined]
        annotator = store.annotator_by_token(self.token)
        assert annotator is not None
        return store.assignment(assignment, annotator.name).displayed

    def by_place(self, assignment: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Fields that name answers by their numbers in the task, as the page sends them: by the places shown."""
        displayed = list(self.displayed(assignment))
        names = {f"tier-{number}": f"tier-{place}" for place, number in enumerate(displayed)}
        given = {names.get(name, name): value for name, value in values.items()}
        if given.get("edited_from") in map(str, displayed):
            given["edited_from"] = str(displayed.index(int(given["edited_from"])))
        return given

    def form(self, path: str = "/rank") -> dict[str, str]:
        """The hidden fields of the page."""
        text = self.client.get(path).text
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text))
        assert {"csrf", "key", "assignment"} <= set(fields), text[:500]
        return fields

    def submit(self, path: str = "/rank", headers: dict[str, str] | None = None, **values: Any) -> Any:
        """``_tier_0`` is the rank of the task's answer 0, wherever it is shown; so is ``edited_from``."""
        form = self.form(path)
        given = {name.replace("_tier_", "tier-"): value for name, value in values.items()}
        form |= self.by_place(form["assignment"], given)
        return self.client.post(
            "/rank", data=form, headers=ORIGIN if headers is None else headers, follow_redirects=False
        )


def client_of(place: Path | str, settings: ServerSettings | None = None, **options: Any) -> TestClient:
    return TestClient(create_app(place, settings or ServerSettings(), **options), base_url=URL)


TIERS = {"_tier_0": "1", "_tier_1": "2", "_tier_2": "2"}
