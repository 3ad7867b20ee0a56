"""The ranking server: ``create_app`` and the pages of an annotator. The admin's are in ``admin.py``.

Handlers are plain functions, which FastAPI runs in a pool of threads, since the store waits for the disk. What a
handler answers after ``store.submit`` has returned is durable: the store returns when the transaction is on the disk.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jinja2
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from trivium.feedback.rankings.store import Annotator, Assignment, Store, StoreError
from trivium.web import views
from trivium.web.access import (
    BODY,
    COOKIE_DAYS,
    Gate,
    Limits,
    cookie_name,
    csrf_matches,
    csrf_token,
    too_many,
    wants_json,
)
from trivium.web.forms import FormError, is_said_by, read_form, submission
from trivium.web.live import LiveSampler
from trivium.web.settings import ServerSettings

LOG = logging.getLogger("trivium.web")
HERE = Path(__file__).parent
# HTTP status of what the store refuses; everything else is the state of the database
STATUS = {"invalid": 400, "unknown_response": 400, "unknown_annotator": 403, "unknown_task": 404}
STATUS |= {"unknown_assignment": 404, "conflict": 409}
TITLES = {400: "This cannot be stored", 403: "No access", 404: "Not found", 409: "Changed meanwhile"}
TITLES |= {429: "Too fast", 503: "The store cannot be used"}
OPEN_LINK = "Open the link that you were given; it lets you in. Ask the person who runs this server for a new one."
router = APIRouter()


class Server:
    """What the handlers share."""

    def __init__(self, store: Store, settings: ServerSettings, live: LiveSampler | None) -> None:
        self.store, self.settings, self.live = store, settings, live
        self.cookie = cookie_name(store.url)
        self.limits = Limits(settings)
        self.guidelines = views.read_guidelines(settings.guidelines)
        loader = jinja2.FileSystemLoader(settings.templates or HERE / "templates")
        self.templates = jinja2.Environment(loader=loader, autoescape=True, auto_reload=False)

    def page(self, name: str, status: int = 200, annotator: Annotator | None = None, **context: Any) -> HTMLResponse:
        """A template with what all pages are given."""
        common = {
            "annotator": annotator.name if annotator else None,
            "is_admin": annotator is not None and annotator.role == "admin",
            "guidelines_url": "/guidelines",
        }
        return HTMLResponse(self.templates.get_template(name).render({**common, **context}), status)

    def token(self, request: Request) -> str:
        return request.cookies.get(self.cookie, "")

    def annotator(self, request: Request) -> Annotator:
        """Whose token the cookie holds. Raises HTTPException 403, or 429 after many wrong tokens from an address."""
        token = self.token(request)
        if not token:
            raise HTTPException(403, OPEN_LINK)
        return self.let_in(request, token)

    def let_in(self, request: Request, token: str) -> Annotator:
        address = request.client.host if request.client else ""
        if wait := self.limits.failure_wait(address, token):
            raise HTTPException(429, f"{wait:g}")
        annotator = self.store.annotator_by_token(token)
        if annotator is None or not annotator.active:
            self.limits.was_wrong(address, token)
            raise HTTPException(403, f"This link is not valid, or not any more. {OPEN_LINK}")
        self.limits.was_right(token)
        return annotator

    def posted(self, request: Request) -> dict[str, str]:
        """The fields of the form; FormError 403 where its CSRF token is not the one of this cookie."""
        return read_form(request.scope.get(BODY, b""), request.headers.get("content-type", ""))

    def check_csrf(self, request: Request, form: Mapping[str, str]) -> None:
        if not csrf_matches(self.token(request), form.get("csrf", "")):
            raise FormError("the form is from another session than yours; reload the page and try again", 403)


def server_of(request: Request) -> Server:
    return request.app.state.server  # type: ignore[no-any-return]


def create_app(
    store_place: str | Path, settings: ServerSettings | None = None, live: LiveSampler | None = None
) -> FastAPI:
    """The server over the store at ``store_place`` (a .db file, a directory, or the address of a database).

    ``live`` is started and stopped with it. Raises StoreError where the store cannot be opened.
    """
    settings = settings or ServerSettings()
    store = live.store if live else Store.open(store_place)
    server = Server(store, settings, live)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if live:
            live.start()
        yield
        if live:
            live.stop()
        store.close()

    app = FastAPI(title="Trivium rankings", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.server = server
    app.add_middleware(Gate, settings=settings, limits=server.limits, cookie=server.cookie)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(FormError, _form_error)
    from trivium.web import admin

    app.include_router(router)
    app.include_router(admin.router)
    static = settings.static or HERE / "static"
    app.mount("/static", StaticFiles(directory=static, check_dir=False), name="static")
    return app


# ---- the pages -------------------------------------------------------------------------------------------------------


@router.get("/health")
def health() -> Response:
    return JSONResponse({"ok": True})


@router.get("/enter/{token}")
def enter(request: Request, token: str) -> Response:
    """The link of an annotator: its token goes into the cookie, and out of the address."""
    server = server_of(request)
    annotator = server.let_in(request, token)
    response: Response = RedirectResponse("/", 303)
    if _from_elsewhere(request):
        response = _come_in(server, annotator)
    response.set_cookie(
        server.cookie,
        token,
        max_age=COOKIE_DAYS * 24 * 3600,
        httponly=True,
        samesite="strict",
        secure=server.settings.secure,
    )
    return response


def _from_elsewhere(request: Request) -> bool:
    """Whether a link on another site led here. A strict cookie is then not sent, nor after a redirect; only once our
    own page has asked for the next."""
    return request.headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")


def _come_in(server: Server, annotator: Annotator | None = None) -> Response:
    message = "One moment: the ranking page opens by itself."
    page = server.page("message.html", annotator=annotator, title="Welcome", message=message, link="/rank")
    page.headers["Refresh"] = "0; url=/rank"
    return page


@router.get("/")
def home(request: Request) -> Response:
    server = server_of(request)
    if not server.token(request) and _from_elsewhere(request):
        return _come_in(server)
    server.annotator(request)
    return RedirectResponse("/rank", 303)


@router.get("/rank")
def rank(request: Request) -> Response:
    """The task in hand, or a new one."""
    server = server_of(request)
    if not server.token(request) and _from_elsewhere(request):
        return _come_in(server)
    annotator = server.annotator(request)
    settings = server.settings
    assignment = server.store.assign(
        annotator.name,
        lease_seconds=settings.lease_seconds,
        gold_share=settings.gold_share,
        random_share=settings.random_share,
        seed=settings.seed,
    )
    if assignment is not None:
        return _rank_page(request, annotator, assignment)
    waiting = server.live is not None and server.live.is_working
    page = server.page(
        "empty.html",
        annotator=annotator,
        **_progress(server, annotator),
        waiting=waiting,
    )
    if waiting:
        page.headers["Refresh"] = "5"
    return page


@router.get("/back")
def back(request: Request) -> Response:
    """The annotator's last ranking again, to correct it; what is submitted then supersedes it."""
    server = server_of(request)
    annotator = server.annotator(request)
    assignment = server.store.last_assignment(annotator.name)
    if assignment is None:
        raise HTTPException(404, "You have not ranked anything yet, so there is nothing to correct.")
    of_task = list(server.store.rankings(task=assignment.task.id, annotators=[annotator.name]))
    last = next((ranking for ranking in of_task if ranking.id == assignment.ranking_id), None)
    return _rank_page(request, annotator, assignment, form=views.form_of(last, assignment.displayed) if last else {})


@router.post("/rank")
def submit(request: Request) -> Response:
    """Store what the form says. 303 to the next task, or JSON where the page's script asks for it."""
    server = server_of(request)
    annotator = server.annotator(request)
    form = server.posted(request)
    try:
        server.check_csrf(request, form)
        assignment = server.store.assignment(form.get("assignment", ""), annotator.name)
        said = submission(form, assignment)
        ranking = server.store.submit(assignment.id, annotator.name, said.key, **said.arguments)
        if not is_said_by(ranking, said):
            raise FormError(
                "this form was sent before with other values, and those are stored; submit again to correct them", 409
            )
    except (FormError, StoreError) as error:
        return _refused(request, annotator, form, error)
    if wants_json(request.headers):
        return JSONResponse({"ok": True, "ranking": ranking.id})
    return RedirectResponse("/rank", 303)


@router.get("/guidelines")
def guidelines(request: Request) -> Response:
    server = server_of(request)
    return server.page("guidelines.html", annotator=server.annotator(request), sections=server.guidelines)


def _rank_page(
    request: Request,
    annotator: Annotator,
    assignment: Assignment,
    status: int = 200,
    error: str | None = None,
    form: Mapping[str, str] | None = None,
) -> Response:
    server = server_of(request)
    return server.page(
        "rank.html",
        status,
        annotator,
        assignment_id=assignment.id,
        csrf=csrf_token(server.token(request)),
        key=secrets.token_urlsafe(16),
        criterion=assignment.task.criterion,
        messages=views.messages(assignment.task.prompt),
        answers=views.blind_answers(assignment),
        **_progress(server, annotator),
        error=error,
        form=dict(form or {}),
    )


def _progress(server: Server, annotator: Annotator) -> dict[str, Any]:
    done, remaining, total = server.store.progress_of(annotator.name)
    return {"progress": {"done": done, "remaining": remaining, "total": total}, "can_go_back": done > 0}


# ---- refusals --------------------------------------------------------------------------------------------------------


def _refused(
    request: Request, annotator: Annotator, form: Mapping[str, str], error: FormError | StoreError
) -> Response:
    """The form again, with its values and what is wrong with it; as JSON for the page's script."""
    status = error.status if isinstance(error, FormError) else STATUS.get(error.code, 503)
    if status == 503:
        LOG.error("a ranking was not stored: %s", error)
    if not wants_json(request.headers):
        try:
            assignment = server_of(request).store.assignment(form.get("assignment", ""), annotator.name)
        except StoreError:  # no task to show the form with
            pass
        else:
            return _rank_page(request, annotator, assignment, status, str(error), form=form)
    return _answer(request, status, str(error))


def _answer(request: Request, status: int, sentence: str) -> Response:
    if wants_json(request.headers):
        return JSONResponse({"ok": False, "error": sentence}, status)
    title = TITLES.get(status, "This did not work")
    return server_of(request).page("message.html", status, title=title, message=sentence[:1].upper() + sentence[1:])


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 429:
        return too_many(request.headers, float(error.detail))
    known = {404: "There is no such page.", 405: "This page cannot be used in this way."}
    sentence = known.get(error.status_code, error.detail) if error.detail in _STANDARD else error.detail
    return _answer(request, error.status_code, sentence)


_STANDARD = ("Not Found", "Method Not Allowed")


def _store_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)
    status = STATUS.get(error.code, 503)
    if status == 503:
        LOG.error("%s %r: %s", request.method, request.url.path.partition("/enter/")[0], error)
    return _answer(request, status, str(error))


def _form_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FormError)
    return _answer(request, error.status, str(error))
