"""What Celery calls: a bell rang, so work until the lanes are empty."""

from celery import Celery

from shared.bells.bell import TASK
from worker.loop import Loop


def register(app: Celery, loop: Loop) -> None:
    """Answer bells with `loop`. Which job rang does not matter: the database says whose turn it is."""

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def bell(_job_id: str) -> None:
        loop.run()
