"""What a process of a study runs: ``python -m trivium.studies.job PARENT run …`` or ``… PARENT measure REQUEST``."""

import os
import signal
import sys
from pathlib import Path

from trivium.parent import on_death


def main(parent: str, kind: str, *arguments: str) -> None:
    # who starts a study in the background of a script hands down that SIGINT is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    on_death(signal.SIGINT)
    if sys.platform == "linux" and os.getppid() != int(parent):  # it was gone before
        sys.exit(130)
    if kind == "run":
        from trivium.cli import main as command_line

        command_line(["run", *arguments])
        return
    from trivium.errors import UserError
    from trivium.studies.measure import measure

    try:
        measure(Path(arguments[0]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
