"""`python -m tests.faults.wired NAMES MODULE …`: one of our programs in other wirings; what it starts is wired the same."""

import runpy
import sys

from shared import children
from tests.faults.wirings import WIRINGS


def command(names: str, module: str, *arguments: str) -> list[str]:
    """What runs `module` so. `names` has commas between."""
    return [sys.executable, "-m", "tests.faults.wired", names, module, *arguments]


def main() -> None:
    """Rewire this process, then be the program."""
    names, module, *arguments = sys.argv[1:]
    children.python = lambda module, *arguments: command(names, module, *arguments)
    for name in names.split(","):
        WIRINGS[name](module)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
