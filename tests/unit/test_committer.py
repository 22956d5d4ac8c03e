"""What has finished becomes final, once, whatever the database answers; and nobody pays for a neighbour."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy.exc import OperationalError

from shared.blobs.memory import MemoryBlobs
from shared.folders.outputs import Outputs
from shared.folders.roots import Roots
from shared.jobs.job import Job, Lane, State, Success, blob_key, result_part
from shared.jobs.store import Jobs, Publications
from tests.conftest import MakesJobs
from tests.promises.programs import eventually
from worker import patience
from worker.committer import Committer

Finish = Callable[[], Success]
T = TypeVar("T")


def told(call: Callable[[], T]) -> "Future[T]":
    """What `call` answers, from a thread that nobody waits for: a committer that hangs fails its test, and stops no other."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # noqa: BLE001  # the test that asks for the answer raises it
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def finish(jobs: Jobs, blobs: MemoryBlobs, new_job: MakesJobs) -> Finish:
    """An attempt that has stored its result and is about to succeed."""

    def make() -> Success:
        jobs.accept(new_job())
        (job,) = jobs.claim("tests:1", [Lane.INTERACTIVE], 1_000_000, idle=True)
        key = blob_key(job.id, result_part(job.token))
        draft = blobs.draft()
        draft.write(b"restored")
        draft.place(key)
        return Success(job, {"bytes": draft.size}, key, notes=[])

    return make


class Recording(Jobs):
    """Remembers the groups, and answers as a test says."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__(jobs._engine, 30)
        self.groups: list[list[str]] = []
        self.before: list[Exception] = []  # raised instead of the commit, one each time
        self.after: list[Exception] = []  # raised after it: the answer was lost
        self.poison = ""

    def succeed(self, group: Sequence[Success], published: Publications = None) -> frozenset[tuple[str, int]]:
        self.groups.append([success.job.id for success in group])
        if self.before:
            raise self.before.pop()
        if self.poison in self.groups[-1]:
            raise ValueError("a row that cannot be written")
        done = super().succeed(group, published)
        if self.after:
            raise self.after.pop()
        return done


@pytest.fixture
def recording(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Recording:
    monkeypatch.setattr(patience, "AGAIN_SECONDS", 0.001)
    return Recording(jobs)


@pytest.fixture
def together(recording: Recording, blobs: MemoryBlobs) -> Iterator[Callable[[Sequence[Success]], list[bool]]]:
    """All of them finish before the committer first looks; what each was told."""
    committer = Committer(recording, blobs, Outputs(Roots()))

    def commit(group: Sequence[Success]) -> list[bool]:
        answers = [told(partial(committer.succeed, success)) for success in group]
        eventually("all of them wait", lambda: committer._finished.qsize() == len(group))
        committer.start()
        return [answer.result(60) for answer in answers]

    yield commit
    told(committer.stop).result(60)


Together = Callable[[Sequence[Success]], list[bool]]


def state(jobs: Jobs, job: Job) -> State:
    found = jobs.get(job.id)
    assert found is not None
    return found.state


def away() -> OperationalError:
    return OperationalError("COMMIT", {}, Exception("the database is away"))


def test_what_finished_together_is_committed_together(together: Together, recording: Recording, finish: Finish) -> None:
    group = [finish() for _ in range(5)]
    assert together(group) == [True] * 5
    assert sorted(recording.groups[0]) == sorted(success.job.id for success in group)
    assert {state(recording, success.job) for success in group} == {State.SUCCEEDED}


def test_a_large_file_makes_nobody_wait_for_it(together: Together, recording: Recording, finish: Finish) -> None:
    small, other = finish(), finish()
    large = replace(finish(), result={"bytes": 50_000_000})
    assert together([large, small, other]) == [True] * 3
    assert [set(group) for group in recording.groups] == [{small.job.id, other.job.id}, {large.job.id}]


def test_an_attempt_that_is_no_longer_ours_is_told_so_and_its_neighbours_succeed(
    together: Together, recording: Recording, finish: Finish
) -> None:
    lost, ours = finish(), finish()
    recording.cancel("local", lost.job.id)
    assert together([lost, ours]) == [False, True]
    assert state(recording, lost.job) is State.CANCELED


def test_a_result_that_is_not_there_fails_alone(together: Together, recording: Recording, blobs: MemoryBlobs, finish: Finish) -> None:
    bad, good = finish(), finish()
    blobs.delete(bad.result_key or "")
    with pytest.raises(FileNotFoundError):
        together([bad, good])
    eventually("the neighbour succeeded", lambda: state(recording, good.job) is State.SUCCEEDED)
    assert state(recording, bad.job) is State.RUNNING


def test_a_row_that_cannot_be_written_fails_alone(together: Together, recording: Recording, finish: Finish) -> None:
    bad, good = finish(), finish()
    recording.poison = bad.job.id
    with pytest.raises(ValueError, match="cannot be written"):
        together([bad, good])
    eventually("the neighbour succeeded", lambda: state(recording, good.job) is State.SUCCEEDED)


def test_a_commit_that_did_not_happen_is_made_again(together: Together, recording: Recording, finish: Finish) -> None:
    success = finish()
    recording.before = [away(), away()]
    assert together([success]) == [True]
    assert state(recording, success.job) is State.SUCCEEDED


def test_between_commits_that_did_not_happen_there_is_a_pause(
    together: Together, recording: Recording, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(patience, "pause", lambda: pauses.append(len(recording.groups)))
    recording.before = [away(), away()]
    assert together([finish()]) == [True]
    assert pauses == [1, 2], "a database that can be read but not written (a full disk) is written to as fast as it can answer"


def test_a_commit_whose_answer_was_lost_is_read_back_and_not_made_twice(together: Together, recording: Recording, finish: Finish) -> None:
    success = finish()
    recording.after = [away()]
    assert together([success]) == [True]
    assert len(recording.groups) == 1


def test_after_a_lost_answer_a_job_that_was_canceled_is_not_ours(together: Together, recording: Recording, finish: Finish) -> None:
    success = finish()
    recording.before = [away()]
    recording.cancel("local", success.job.id)
    assert together([success]) == [False]


def test_after_a_lost_answer_a_success_of_the_attempt_that_followed_is_not_ours(
    together: Together, recording: Recording, jobs: Jobs, finish: Finish
) -> None:
    success = finish()
    recording.before = [away()]
    jobs.release(success.job)
    (followed,) = jobs.claim("tests:2", [Lane.INTERACTIVE], 1_000_000, idle=True)
    jobs.succeed([replace(success, job=followed)])
    assert together([success]) == [False]


def test_what_waits_when_the_worker_stops_is_committed_first(recording: Recording, blobs: MemoryBlobs, finish: Finish) -> None:
    committer = Committer(recording, blobs, Outputs(Roots()))
    success = finish()
    answer = told(lambda: committer.succeed(success))
    eventually("it waits", lambda: committer._finished.qsize() == 1)
    committer.start()
    told(committer.stop).result(60)
    assert answer.result(60)
