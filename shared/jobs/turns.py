"""Whose turn it is. A flow is one owner's single jobs, or one of their batches, in one lane.

Self-clocked fair queueing (Golestani 1994): each job gets its place when it is accepted (store.py), its cost behind the later
of two: V, the turn last claimed in the lane, where a flow starts that was quiet; and the last turn of its flow, for a flow with
much waiting queues behind itself. When its last job is canceled, a flow goes on behind the last that still waits. So nobody
waits for more than their share: while a flow waits, no other of its lane is served more than it by more than the cost of one
job of each (tests/contracts/test_moves.py says why).
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

GROUP_JOBS = 16
GROUP_PIXELS = 1_000_000


class Candidate(Protocol):
    """A due row, as far as choosing needs it."""

    @property
    def pixels(self) -> int:
        """Width times height."""
        ...

    @property
    def alone(self) -> bool:
        """Whether it may share a claim with nobody."""
        ...


C = TypeVar("C", bound=Candidate)  # Python 3.11 has no type parameters on functions


def choose(due: Sequence[C], free_pixels: int, idle: bool) -> list[C]:
    """Of the due rows in order: the first picture, or a group of small ones. Empty if the first does not fit yet.

    A worker that does nothing else (`idle`) takes a picture of any size. What must run alone is never grouped, nor what has no pixels of
    its own: it looks through many files, and would keep the others of its group waiting for as long.
    """
    if not due or (due[0].pixels > free_pixels and not idle):
        return []
    chosen = [due[0]]
    pixels = due[0].pixels
    for candidate in due[1:GROUP_JOBS]:
        pixels += candidate.pixels
        if _is_apart(chosen[0]) or _is_apart(candidate) or pixels > min(free_pixels, GROUP_PIXELS):
            break
        chosen.append(candidate)
    return chosen


def _is_apart(candidate: Candidate) -> bool:
    return candidate.alone or candidate.pixels == 0
