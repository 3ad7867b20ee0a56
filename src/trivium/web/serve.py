"""``trivium rank``: tasks into the store, then the server until Ctrl-C."""

import contextlib
import errno
import getpass
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from trivium.data import fields, files
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.store import NewTask, Store
from trivium.web.live import LiveSampler, LiveSettings
from trivium.web.ranking import create_app
from trivium.web.settings import ServerSettings
from trivium.web.tasks import add_tasks, tasks_of_file, tasks_of_run

if TYPE_CHECKING:
    from trivium.web.selection import Selection

GRACE = 5  # seconds that requests at work are given when the server stops
Say = Callable[[str], None]


@dataclass(frozen=True)
class TaskSources:
    """Where tasks come from; any of them, or none where the store has some."""

    answers: tuple[Path, ...] = ()
    run: Path | None = None
    stage: str | None = None
    live: LiveSettings | None = None
    prompts: Path | None = None
    responses: int = 4
    limit: int | None = None
    criterion: str = "overall"
    wanted: int = 1
    reward_models: tuple[Path, ...] = field(default_factory=tuple)


def serve(place: str, sources: TaskSources, settings: ServerSettings, say: Say = print) -> None:
    """Serve the store at ``place`` until Ctrl-C or a signal to end; requests at work are finished first.

    Raises UserError for a port in use, a store that cannot be opened, and sources that cannot be read. Nothing is
    served then.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new store is no news of migrations
    prompts = _live_prompts(sources)
    with _bound(settings) as listening:
        settings = replace(settings, port=listening.getsockname()[1])
        store = Store.open(place)
        try:
            live = _fill(store, sources, settings, prompts, say)
            _greet(store, settings, live, say)
        except BaseException:
            store.close()
            raise
        if live is None:
            store.close()  # the server opens its own
        config = uvicorn.Config(
            create_app(place, settings, live),
            log_level="warning",
            access_log=False,  # the addresses of links hold tokens
            proxy_headers=settings.public_url is not None,  # of a proxy on this machine alone, uvicorn's default
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands it on when it has stopped
            uvicorn.Server(config).run(sockets=[listening])
    say("stopped; what was submitted is in the store")


def _bound(settings: ServerSettings) -> socket.socket:
    host = settings.host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {settings.port} of {host} is in use; stop what serves there, or choose another with --port"
            ) from None
        raise UserError(f"{host}, port {settings.port} cannot be served on ({error.strerror or error})") from None
    return listening


def _live_prompts(sources: TaskSources) -> list[Prompt]:
    if sources.live is None:
        return []
    if sources.prompts is None:
        raise UserError("--live needs --prompts FILE: what the model is asked, one JSON object a line")
    if not sources.prompts.is_file():
        raise UserError(f"{sources.prompts}: there is no such file of prompts; check the path")
    _check_model(sources.live.model)
    prompts = [fields.prompt(row, {}) for row in files.read_file(sources.prompts)]
    if not prompts:
        raise UserError(f"{sources.prompts} holds no prompts: give one JSON object a line, with a field prompt")
    return list({prompt.id: prompt for prompt in prompts}.values())


def _check_model(model: str) -> None:
    """UserError where live answers cannot come from ``model``, before anything is served."""
    from trivium.model.huggingface import read_config
    from trivium.model.scalar import refuse_scores
    from trivium.text.tokenizer import Tokenizer

    refuse_scores(read_config(model), model)
    Tokenizer.load(model)


def _fill(
    store: Store, sources: TaskSources, settings: ServerSettings, prompts: list[Prompt], say: Say
) -> LiveSampler | None:
    """Tasks of the sources into the store, with their priorities; the live sampler, not started."""
    selection = _selection(sources, settings)
    made: list[NewTask] = []
    for path in sources.answers:
        made += tasks_of_file(path, sources.criterion, sources.wanted)
    if sources.run is not None:
        made += tasks_of_run(
            sources.run,
            sources.stage,
            sources.responses,
            sources.criterion,
            sources.wanted,
            sources.limit,
            settings.seed,
        )
    if made:
        say(f"{add_tasks(store, selection.sliced(made) if selection else made)} tasks from the files given")
    if selection is not None:
        say(f"{selection.judge_store(store)} open tasks are ordered by the disagreement of the reward models")
    if sources.live is None:
        return None
    return LiveSampler(store, prompts, sources.live, selection.judge if selection else None)


def _selection(sources: TaskSources, settings: ServerSettings) -> "Selection | None":
    if not sources.reward_models:
        return None
    from trivium.web.selection import Selection

    return Selection.load(sources.reward_models, settings.random_share, settings.seed)


def _greet(store: Store, settings: ServerSettings, live: LiveSampler | None, say: Say) -> None:
    """Where the page is; where the store has no admin yet, the link of its first."""
    if not settings.is_loopback and not settings.secure:
        say(
            f"warning: {settings.host} can be reached from other machines and there is no TLS: links, answers and "
            "rankings travel in the clear; put a reverse proxy with https before it, or use a network you trust"
        )
    annotators = store.annotators()
    if not any(person.role == "admin" for person in annotators):
        name = _user({person.name for person in annotators})
        token = store.add_annotator(name, role="admin")
        say(f"store {store.url}: admin {name!r} enters here (shown once): {link(settings.url, token)}")
    if live is None and not store.progress().tasks:
        say("the store has no tasks yet: give --answers FILE, --from-run RUN, or --live MODEL with --prompts FILE")
    say(f"ranking page: {settings.url}/  (Ctrl-C stops it)")


def link(url: str, token: str) -> str:
    """What an annotator opens to come in."""
    return f"{url.rstrip('/')}/enter/{token}"


def _user(taken: set[str]) -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container without user names
        name = "admin"
    while name in taken:
        name += "-admin"
    return name
