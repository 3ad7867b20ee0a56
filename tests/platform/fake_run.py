"""The command line with children that are fakes, and without the checks that would import torch."""

import sys

import trivium.preflight.run as preflight
from trivium import cli, parallel

preflight.check_stage = lambda name, config: None
parallel.COMMAND = (sys.executable, "-m", "tests.platform.fake_child")
if __name__ == "__main__":
    cli.main()
