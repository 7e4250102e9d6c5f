"""``python -m local.ops ...``: the operators' commands on what ``make run`` started here."""

import os
import sys
from typing import NoReturn

from local import commands
from local.run import CannotBeginError, make_plan


def main() -> NoReturn:
    """Become ``python -m ops`` with the environment that ``make run`` gives its processes."""
    try:
        plan = make_plan(os.environ)
    except CannotBeginError as error:
        for line in error.args:
            print(line, file=sys.stderr)
        sys.exit(2)
    command = commands.ops(*sys.argv[1:])
    os.chdir(commands.ROOT)
    os.execve(command[0], command, dict(plan.environment))  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main()
