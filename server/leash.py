"""`python -m server.leash COMMAND …`: runs a program that knows nothing of us, and ends it when our parent is gone."""

import signal
import subprocess
import sys

from shared import children


def main() -> int:
    """Run the command to its end."""
    process = subprocess.Popen(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is our parent's to answer
    children.hold_lifeline(process.kill)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
