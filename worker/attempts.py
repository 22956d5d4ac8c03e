"""What a job of each kind does."""

from collections.abc import Callable

from shared.jobs.job import Kind
from worker.committer import Committer
from worker.keeper import Held
from worker.publishing import publish
from worker.restoration import restore
from worker.wiring import Ports

ATTEMPTS: dict[str, Callable[[Held, Ports, Committer], None]] = {Kind.RESTORE: restore, Kind.PUBLISH: publish}
