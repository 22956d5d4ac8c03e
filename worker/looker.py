"""One thread per worker process looks for due rows by itself: losing Redis costs time, never work."""

import threading
from collections.abc import Callable

from shared.bells import reach
from shared.settings import Settings
from worker.loop import Loop

AWAY_SECONDS = 0.5


class Looker:
    """Starts the loop every `look_seconds`, every half second while Redis is away."""

    def __init__(self, loop: Loop, settings: Settings, redis_state: Callable[[str], str] = reach.state) -> None:
        self._loop = loop
        self._settings = settings
        self._redis_state = redis_state
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name="looker", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and wait for what the looks started."""
        self._stopped.set()
        self._thread.join()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            started = threading.Thread(target=self._loop.run, name="looked", daemon=True)
            started.start()
            self._threads.append(started)
            away = self._redis_state(self._settings.redis) != "ok"
            if self._stopped.wait(min(AWAY_SECONDS, self._settings.look_seconds) if away else self._settings.look_seconds):
                return
