"""The admin's pages: progress, agreement, annotators, a task's history, exports."""

import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from trivium.feedback.rankings.export import annotators_csv, demonstrations, preference_pairs, rankings_jsonl
from trivium.feedback.rankings.store import Annotator, Store
from trivium.feedback.rankings.tables import encode
from trivium.web import views
from trivium.web.access import csrf_token
from trivium.web.forms import FormError
from trivium.web.ranking import Server, server_of

router = APIRouter(prefix="/admin")


def _admin(request: Request) -> tuple[Server, Annotator]:
    """The server and who asks. Raises HTTPException 403 for an annotator who is no admin."""
    server = server_of(request)
    annotator = server.annotator(request)
    if annotator.role != "admin":
        raise HTTPException(403, "This page is for admins. Your ranking page is at /rank.")
    return server, annotator


class _Agreement:
    """The agreement of the last store looked at: it changes only when rankings do, and takes a while with many."""

    def __init__(self) -> None:
        self.key: tuple[str, int, int] | None = None
        self.rows: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def of(self, store: Store, said: int) -> list[dict[str, Any]]:
        """``said``: how many rankings were ever stored. A correction leaves the number of those that stand as it is."""
        with self.lock:
            key = (store.url, id(store), said)
            if key != self.key:
                self.key, self.rows = key, views.agreement_rows(store.rankings())
            return self.rows


_AGREEMENT = _Agreement()


@router.get("")
def overview(request: Request) -> Response:
    server, annotator = _admin(request)
    progress = server.store.progress()
    live = None
    if server.live is not None:
        live = {**asdict(server.live.status), "model": server.live.settings.model}
    context = views.admin_page(server.store, progress, _AGREEMENT.of(server.store, progress.said))
    return server.page("admin.html", annotator=annotator, live=live, **context)


@router.get("/tasks/{task_id}")
def task(request: Request, task_id: str) -> Response:
    server, annotator = _admin(request)
    found = server.store.task(task_id)
    history = list(server.store.rankings(superseded=True, task=task_id))
    context = views.task_page(found, history)
    return server.page("task.html", annotator=annotator, csrf=csrf_token(server.token(request)), **context)


@router.post("/tasks/{task_id}")
def change_task(request: Request, task_id: str) -> Response:
    """Close a task, or give it out again (a flagged one is held back until an admin does either)."""
    server, _ = _admin(request)
    form = server.posted(request)
    server.check_csrf(request, form)
    changes = {"close": server.store.close_task, "reopen": server.store.reopen_task}
    action = form.get("action", "")
    if action not in changes:
        raise FormError(f"the form asks for {action[:40]!r}; a task can be closed or reopened")
    changes[action](task_id)
    return RedirectResponse(f"/admin/tasks/{task_id}", 303)


# ---- exports ---------------------------------------------------------------------------------------------------------


@router.get("/export/{name}")
def export(request: Request, name: str) -> Response:
    """A file to keep. A browser never shows it: the answers in it are hostile text."""
    server, _ = _admin(request)
    makers = {
        "rankings.jsonl": _rankings,
        "pairs.jsonl": _pairs,
        "demonstrations.jsonl": _demonstrations,
        "annotators.csv": _annotators,
    }
    if name not in makers:
        raise HTTPException(404, f"There is no export {name[:40]!r}; there are {', '.join(makers)}.")
    kind = "text/csv" if name.endswith(".csv") else "text/plain"
    return StreamingResponse(
        makers[name](server.store),
        media_type=f"{kind}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _rankings(store: Store) -> Iterator[str]:
    """Every ranking that was ever given, corrected ones too: nothing of the store is lost in it."""
    return rankings_jsonl(store.rankings(superseded=True))


def _pairs(store: Store) -> Iterator[str]:
    return (f"{encode(row)}\n" for row in preference_pairs(store.rankings()))


def _demonstrations(store: Store) -> Iterator[str]:
    return (f"{encode(row)}\n" for row in demonstrations(store.rankings()))


def _annotators(store: Store) -> Iterator[str]:
    return annotators_csv(store.rankings(), {task.id: task.gold for task in store.gold_tasks() if task.gold})
