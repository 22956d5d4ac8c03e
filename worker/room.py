"""How many pixels are in work at once in this process: memory is bounded by it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.5


class Room:
    """A budget of pixels. Claimed jobs take theirs at once; an attempt that meets its pictures one by one asks for each."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._claimed = 0
        self._asked = 0
        self._changed = threading.Condition()
        self._asking = threading.Lock()

    @property
    def free(self) -> int:
        """How many may still be claimed; none where somebody waits for others to end, so that nothing more is begun."""
        with self._changed:
            return self._pixels - self._claimed - self._asked

    @property
    def idle(self) -> bool:
        """Whether none is claimed. What is asked for does not count: picture by picture it would never let a large job in."""
        with self._changed:
            return self._claimed == 0

    def claim(self, pixels: int) -> None:
        """Without waiting: whoever claims has looked what is free."""
        with self._changed:
            self._claimed += pixels

    def give_back(self, pixels: int) -> None:
        """What was claimed is not in work any more."""
        with self._changed:
            self._claimed -= pixels
            self._changed.notify_all()

    @contextmanager
    def taking(self, pixels: int, look: Callable[[], None]) -> Iterator[None]:
        """Within it they are taken. Waits for room, or until nothing is claimed; `look` is called meanwhile, and may raise.

        One asks at a time: two large ones would wait for each other.
        """
        while not self._asking.acquire(timeout=LOOK_SECONDS):
            look()
        try:
            with self._changed:
                self._asked = pixels
                while self._claimed and self._claimed + pixels > self._pixels:
                    look()
                    self._changed.wait(LOOK_SECONDS)
            yield
        finally:
            with self._changed:
                self._asked = 0
            self._asking.release()
