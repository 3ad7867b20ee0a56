"""Work of which some parts need others: several parts at a time, each begun as soon as what it needs is done."""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from trivium.references import references

if TYPE_CHECKING:
    from trivium.config import RecipeConfig


def in_order(
    needs: Mapping[str, Collection[str]],
    work: Callable[[str], None],
    at_once: int,
    stop_on_failure: bool = True,
) -> dict[str, BaseException]:
    """Call ``work(name)`` for every name of ``needs``, each after the names it needs; returns what was raised by name.

    Parts that are ready begin in the order of ``needs``, at most ``at_once`` at a time, each in a thread (which starts
    a process and waits for it, or does light work). A part whose need failed is not begun and is in no result. With
    ``stop_on_failure`` nothing is begun after the first failure; what runs is waited for. Names that are needed but
    are not in ``needs`` count as done. An interrupt of the caller is raised once what runs has ended.

    Raises ValueError where parts need one another in a circle.

    >>> done = []
    >>> in_order({"b": {"a"}, "a": set()}, done.append, at_once=2), done
    ({}, ['a', 'b'])
    """
    waiting = {name: {other for other in others if other in needs} for name, others in needs.items()}
    done: set[str] = set()
    failed: dict[str, BaseException] = {}
    running: dict[Future[None], str] = {}
    ended = threading.Event()
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        try:
            while waiting or running:
                ready = [name for name, others in waiting.items() if others <= done]
                for name in ready if not ended.is_set() else ():
                    if len(running) == at_once:
                        break
                    del waiting[name]
                    running[pool.submit(work, name)] = name
                if not running:
                    if not failed:
                        raise ValueError(f"these need one another in a circle: {', '.join(waiting)}")
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    if (error := future.exception()) is not None:
                        failed[name] = error
                        if stop_on_failure:
                            ended.set()
                    else:
                        done.add(name)
        except KeyboardInterrupt:
            ended.set()
            raise
    return failed


def stage_needs(config: "RecipeConfig") -> dict[str, set[str]]:
    """Which other stages each stage of a recipe names: what they make has to be there before it begins."""
    named = {name: references(stage.model_dump(mode="json")) for name, stage in config.stages.items()}
    return {name: {item.name for item in found} & config.stages.keys() - {name} for name, found in named.items()}


def stands_alone(config: "RecipeConfig", name: str) -> bool:
    """Whether no other stage can run beside ``name``: each goes back to it, or it goes back to each."""
    needs = stage_needs(config)
    before = _reached(name, needs)
    return all(other in before or other == name or name in _reached(other, needs) for other in needs)


def thread_share(config: "RecipeConfig", name: str, cores: int) -> int:
    """CPU threads of a stage under ``parallel``; 0: as many as torch takes.

    One that no other can run beside has all, any other its equal part, whatever really runs beside it: a number that
    may change the last bits of what a stage computes must not depend on what else was finished or chosen.
    """
    if config.parallel == 1 or stands_alone(config, name):
        return config.threads
    return max(1, (config.threads or cores) // config.parallel)


def _reached(name: str, needs: Mapping[str, Collection[str]]) -> set[str]:
    """All that ``name`` needs, directly or by what that needs."""
    found: set[str] = set()
    waiting = list(needs[name])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += needs[other]
    return found
