"""The process behind the ``function`` verifier: reads requests, calls the user's function, writes replies.

One JSON object a line in both directions. What the function prints goes to standard error, so that it cannot be taken
for a reply. The process ends when its input closes, even in the middle of a call.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from trivium.data.records import Message, Prompt


def load(path: str) -> Callable[[Prompt, str], Any]:
    """The function at 'package.module:name' or 'file.py:name'. Raises what the import raises, or AttributeError."""
    place, _, name = path.rpartition(":")
    if place.endswith(".py"):
        file = Path(place).resolve()
        specification = importlib.util.spec_from_file_location(file.stem, file)
        if specification is None or specification.loader is None or not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
        module = importlib.util.module_from_spec(specification)
        sys.modules[file.stem] = module
        sys.path.insert(0, str(file.parent))
        specification.loader.exec_module(module)
    else:
        sys.path.insert(0, os.getcwd())
        module = importlib.import_module(place)
    function = getattr(module, name)
    if not callable(function):
        raise TypeError(f"{name} is not a function")
    return function  # type: ignore[no-any-return]


def reply(function: Callable[[Prompt, str], Any], request: dict[str, Any]) -> str:
    """The function's result as a line of JSON: an object with a score or with an error."""
    try:
        fields = request["prompt"]
        messages = tuple(Message(**message) for message in fields.pop("messages"))
        result = function(Prompt(messages=messages, **fields), request["response"])
        if is_dataclass(result) and not isinstance(result, type):
            result = asdict(result)
        elif not isinstance(result, dict):
            result = {"score": float(result)}
        elif "score" in result:
            result = {**result, "score": float(result["score"])}
        return json.dumps(result)
    except BaseException as error:  # SystemExit too: a reply is owed whatever the function does
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:500]})


def main(path: str) -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.Queue[str] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in sys.stdin:
                requests.put(line)
        os._exit(0)

    def write(line: str) -> None:
        replies.write(line + "\n")
        replies.flush()

    try:
        function = load(path)
    except BaseException as error:
        write(json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}))
        return
    write("{}")
    threading.Thread(target=read, daemon=True).start()
    while True:
        write(reply(function, json.loads(requests.get())))


if __name__ == "__main__":
    main(sys.argv[1])
