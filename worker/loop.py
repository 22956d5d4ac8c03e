"""Claim, do, again, until the lanes are empty or the worker stops. Bells and the looker start it; it owns no rules."""

import threading
import time
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from shared import disk, events
from shared.jobs.job import PATIENT, Kind, Lane
from worker import alone
from worker.attempts import ATTEMPTS
from worker.committer import Committer
from worker.keeper import Held, Keeper
from worker.room import Room
from worker.wiring import Ports

GLANCE_SECONDS = 0.05  # so often a worker that has groups in work looks whether a lane before theirs has something to do


class Loop:
    """The work of one worker process, shared by its threads."""

    def __init__(
        self, ports: Ports, keeper: Keeper, committer: Committer, worker: str, lanes: Sequence[Lane], budget_pixels: int, threads: int
    ) -> None:
        self._ports = ports
        self._keeper = keeper
        self._committer = committer
        self._worker = worker
        self._lanes = lanes
        self._room = Room(budget_pixels)
        self._alone = False  # whether a job that must run alone is in work: others like it wait in the queue, not in a seat
        self._paused = False  # whether bulk is, since the disk is nearly full
        self._glanced = time.monotonic()
        self._claiming = threading.Lock()
        self._seats = threading.BoundedSemaphore(threads)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Work until nothing is due. Returns at once when enough threads already do: they claim again before they end."""
        if not self._seats.acquire(blocking=False):
            return
        try:
            while not self._stopping.is_set() and (claimed := self._claim(self._lanes)):
                self._attempt_all(claimed)
        except SQLAlchemyError as error:  # the database is away: the looker starts again
            events.emit("database.away", reason=type(error).__name__)
        finally:
            self._seats.release()

    def stop(self) -> None:
        """Take nothing more. What has begun goes on, but for what would take longer than anybody waits."""
        self._stopping.set()
        for held in self._keeper.all():
            held.stopping.set()

    def release(self) -> None:
        """Give everything back that has not ended: the grace is over."""
        self.stop()
        for held in self._keeper.all():
            try:
                self._ports.jobs.release(held.job)
            except SQLAlchemyError as error:  # the database is away: its lease lapses, and upkeep reaps it
                events.emit("database.away", reason=type(error).__name__)

    def _claim(self, lanes: Sequence[Lane]) -> list[Held]:
        with self._claiming:
            idle, free, open_lanes = self._room.idle, self._room.free, [lane for lane in self._open_lanes() if lane in lanes]
            claimed = self._ports.jobs.claim(self._worker, open_lanes, free, idle=idle, alone=not self._alone)
            self._room.claim(sum(job.pixels for job in claimed))
            self._alone |= any(job.alone for job in claimed)
            return [self._keeper.hold(job, self._room) for job in claimed]

    def _open_lanes(self) -> list[Lane]:
        """Those that are claimed from. While the disk is nearly full the rest of it is for who waits for an answer."""
        patient = [lane for lane in self._lanes if lane in PATIENT]
        full = bool(patient) and disk.nearly_full(self._ports.settings)
        if full is not self._paused:
            self._paused = full
            events.emit("lane.paused" if full else "lane.resumed", lane=patient[0])
        return [lane for lane in self._lanes if not (full and lane in patient)]

    def _attempt_all(self, claimed: list[Held]) -> None:
        try:
            for held in claimed:
                self._attempt_those_before(held.job.lane)
                self._attempt(held)
        finally:  # whatever happened: nothing stays held that nobody works on
            for held in claimed:
                self._keeper.drop(held)
            with self._claiming:
                self._room.give_back(sum(held.job.pixels for held in claimed))
                self._alone &= not any(held.job.alone for held in claimed)

    def _attempt_those_before(self, lane: str) -> None:
        """What came meanwhile into a lane before this one, whose pictures may all be in groups that have just begun."""
        before = self._lanes[: self._lanes.index(Lane(lane))]
        if not before or not self._may_glance():
            return
        try:
            while not self._stopping.is_set() and (claimed := self._claim(before)):
                self._attempt_all(claimed)
        except SQLAlchemyError as error:  # the database is away: what is held goes on
            events.emit("database.away", reason=type(error).__name__)

    def _may_glance(self) -> bool:
        """Whether no thread has looked for a while."""
        with self._claiming:
            due = time.monotonic() - self._glanced >= GLANCE_SECONDS
            if due:
                self._glanced = time.monotonic()
            return due

    def _attempt(self, held: Held) -> None:
        try:
            with events.context(request_id=held.job.request_id, job_id=held.job.id):
                if held.lost.is_set():
                    return
                if self._stopping.is_set():
                    self._ports.jobs.release(held.job)
                elif held.job.alone and held.job.kind not in (Kind.TRAIN, Kind.EVALUATE):  # which always have a process of their own
                    alone.run(held, self._ports)
                else:
                    ATTEMPTS[held.job.kind](held, self._ports, self._committer)
        finally:
            self._keeper.drop(held)
