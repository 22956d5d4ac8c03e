"""Both blob stores keep the port's promises, in shared/blobs/store.py."""

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.blobs.local import DRAFTS, LocalBlobs
from shared.blobs.memory import MemoryBlobs
from shared.blobs.store import Blobs
from shared.jobs.job import blob_key

MAKERS: dict[str, Callable[[Path], Blobs]] = {"local": lambda root: LocalBlobs(root / "blobs"), "memory": lambda root: MemoryBlobs()}


@pytest.fixture(params=MAKERS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return MAKERS[request.param](tmp_path)


def placed(blobs: Blobs, key: str, data: bytes = b"data") -> str:
    draft = blobs.draft()
    draft.write(data)
    draft.place(key)
    return key


def content(blobs: Blobs, key: str) -> bytes:
    with blobs.open(key) as file:
        return file.read()


def keys(blobs: Blobs) -> set[str]:
    return {stored.key for stored in blobs.stored()}


def test_what_was_written_is_read_under_its_key(blobs: Blobs) -> None:
    draft = blobs.draft()
    assert (draft.write(b"ab"), draft.write(b""), draft.write(b"cde")) == (2, 0, 3)
    assert draft.size == 5
    assert draft.sha256() == hashlib.sha256(b"abcde").hexdigest()
    draft.place("ff/id/upload")
    assert content(blobs, "ff/id/upload") == b"abcde"


def test_a_blob_may_be_empty(blobs: Blobs) -> None:
    assert content(blobs, placed(blobs, "ff/id/upload", b"")) == b""


def test_a_draft_is_read_from_its_beginning_while_it_is_written(blobs: Blobs) -> None:
    draft = blobs.draft()
    draft.write(b"abc")
    with draft.reader() as file:
        assert file.read() == b"abc"
        file.seek(1)
        assert file.read() == b"bc"
    draft.write(b"d")
    with draft.reader() as file:
        assert file.read() == b"abcd"
    draft.discard()


def test_nobody_sees_a_draft_before_it_is_placed(blobs: Blobs) -> None:
    draft = blobs.draft()
    draft.write(b"abc")
    assert keys(blobs) == set()
    draft.place("ff/id/upload")
    assert keys(blobs) == {"ff/id/upload"}


def test_a_discarded_draft_leaves_nothing(blobs: Blobs) -> None:
    draft = blobs.draft()
    draft.write(b"abc")
    draft.discard()
    draft.discard()
    assert keys(blobs) == set()
    assert blobs.sweep_drafts(older_than_seconds=-1) == 0


def test_discarding_does_nothing_after_placing(blobs: Blobs) -> None:
    draft = blobs.draft()
    draft.write(b"abc")
    draft.place("ff/id/upload")
    draft.discard()
    assert content(blobs, "ff/id/upload") == b"abc"


def test_placing_replaces_an_older_blob_and_leaves_its_readers_the_old_bytes(blobs: Blobs) -> None:
    key = placed(blobs, "ff/id/upload", b"old")
    with blobs.open(key) as reader:
        placed(blobs, key, b"newer")
        assert reader.read() == b"old"
    assert content(blobs, key) == b"newer"


def test_several_blobs_lie_beside_each_other_under_one_id(blobs: Blobs) -> None:
    placed(blobs, "ff/id/upload", b"1")
    placed(blobs, "ff/id/result.1", b"2")
    assert (content(blobs, "ff/id/upload"), content(blobs, "ff/id/result.1")) == (b"1", b"2")


def test_the_blobs_of_one_id_are_told_from_those_of_others(blobs: Blobs) -> None:
    ours, other, beside = (f"0199c0de-0000-7000-8000-{end}" for end in ("0000000000ff", "0100000000ff", "0000000000ff0"))
    for owner in (ours, other, beside):
        placed(blobs, blob_key(owner, "upload"), b"1")
    placed(blobs, blob_key(ours, "result.1"), b"2")
    assert sorted(blobs.owned(ours)) == [blob_key(ours, "result.1"), blob_key(ours, "upload")]
    assert blobs.owned("0199c0de-0000-7000-8000-0000000000fe") == []


def test_a_blob_that_is_not_there_cannot_be_opened_or_synced(blobs: Blobs) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.open("ff/id/upload")
    with pytest.raises(FileNotFoundError):
        blobs.sync(["ff/id/upload"])


def test_blobs_can_be_synced_together(blobs: Blobs) -> None:
    blobs.sync([placed(blobs, "ff/id/upload"), placed(blobs, "ff/id/result.1"), placed(blobs, "00/other/upload")])
    blobs.sync([])


def test_a_blob_can_be_had_as_a_file_that_outlives_it(blobs: Blobs, tmp_path: Path) -> None:
    key = placed(blobs, "ff/id/pixels", b"pixels")
    blobs.fetch(key, tmp_path / "fetched")
    blobs.delete(key)
    assert (tmp_path / "fetched").read_bytes() == b"pixels"
    with pytest.raises(FileNotFoundError):
        blobs.fetch(key, tmp_path / "again")


def test_a_deleted_blob_is_gone_and_its_neighbours_stay(blobs: Blobs) -> None:
    placed(blobs, "ff/id/upload")
    placed(blobs, "ff/id/result.1")
    placed(blobs, "ff/other/upload")
    blobs.delete("ff/id/upload")
    assert keys(blobs) == {"ff/id/result.1", "ff/other/upload"}
    with pytest.raises(FileNotFoundError):
        blobs.open("ff/id/upload")


def test_deleting_what_is_not_there_does_nothing(blobs: Blobs) -> None:
    blobs.delete("ff/id/upload")
    placed(blobs, "ff/id/upload")
    blobs.delete("ff/id/upload")
    blobs.delete("ff/id/upload")
    assert keys(blobs) == set()


def test_a_blob_can_be_placed_again_after_it_was_deleted(blobs: Blobs) -> None:
    blobs.delete(placed(blobs, "ff/id/upload"))
    assert content(blobs, placed(blobs, "ff/id/upload", b"again")) == b"again"


def test_listing_tells_every_blob_and_a_young_age(blobs: Blobs) -> None:
    expected = {placed(blobs, key) for key in ("00/a/upload", "00/b/upload", "ff/c/result.12")}
    listed = list(blobs.stored())
    assert {stored.key for stored in listed} == expected
    assert len(listed) == 3
    assert all(stored.age_seconds < 3600 for stored in listed)


def test_listing_goes_on_when_blobs_are_deleted_meanwhile(blobs: Blobs) -> None:
    everything = {placed(blobs, f"{shard:02x}/id/{part}") for shard in range(8) for part in ("upload", "result.1")}
    listing = blobs.stored()
    first = next(listing).key
    kept = placed(blobs, "ff/kept/upload")
    for key in everything - {first}:
        blobs.delete(key)
    assert {stored.key for stored in listing} <= everything | {kept}
    assert keys(blobs) == {first, kept}


def test_a_fresh_draft_is_not_swept(blobs: Blobs) -> None:
    draft = blobs.draft()
    draft.write(b"abc")
    assert blobs.sweep_drafts(older_than_seconds=3600) == 0
    draft.place("ff/id/upload")
    assert content(blobs, "ff/id/upload") == b"abc"


def test_placing_and_deleting_in_one_shard_at_once_disturb_nobody(blobs: Blobs) -> None:
    def place_and_delete(name: str) -> None:
        for _ in range(60):
            blobs.delete(placed(blobs, f"ff/{name}/upload"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(place_and_delete, "abcd"))
    assert keys(blobs) == set()


# -- what only files can do ---------------------------------------------------------------------------------------------------


def test_an_old_draft_that_its_program_left_behind_is_swept(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    drafts = [blobs.draft(), blobs.draft()]
    old, young = (tmp_path / DRAFTS).iterdir()
    os.utime(old, (0, 0))
    assert blobs.sweep_drafts(older_than_seconds=3600) == 1
    assert list((tmp_path / DRAFTS).iterdir()) == [young]
    for draft in drafts:
        draft.discard()


def test_the_age_of_a_blob_is_that_of_its_file(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    os.utime(tmp_path / placed(blobs, "ff/id/upload"), (0, 0))
    assert next(blobs.stored()).age_seconds > 10**9


def test_deleting_the_last_blob_of_an_id_removes_its_folder(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs.delete(placed(blobs, "ff/id/upload"))
    assert list((tmp_path / "ff").iterdir()) == []
    assert list((tmp_path / DRAFTS).iterdir()) == []


def test_a_store_whose_folder_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "none")
    assert list(blobs.stored()) == []
    assert blobs.sweep_drafts(older_than_seconds=0) == 0


def test_syncing_reaches_every_file_and_every_folder_up_to_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs_keys = [placed(blobs, "ff/id/upload"), placed(blobs, "ff/id/result.1")]
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    blobs.sync(blobs_keys)
    expected = [tmp_path / "ff/id/upload", tmp_path / "ff/id/result.1", tmp_path / "ff/id", tmp_path / "ff", tmp_path]
    assert synced == [path.stat().st_ino for path in expected]


def test_a_shard_stays_when_it_is_empty_so_that_the_root_is_synced_once_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs.sync([placed(blobs, "ff/id/upload")])
    blobs.delete("ff/id/upload")
    key = placed(blobs, "ff/other/upload")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    blobs.sync([key])
    assert synced == [(tmp_path / name).stat().st_ino for name in ("ff/other/upload", "ff/other", "ff")]


def test_a_draft_whose_last_bytes_do_not_fit_on_the_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = LocalBlobs(tmp_path / "blobs").draft()
    draft.write(b"some")

    class Full:
        def close(self) -> None:
            raise OSError(errno.ENOSPC, "no space left")

    draft._file.close()
    monkeypatch.setattr(draft, "_file", Full())
    draft.discard()
    assert list((tmp_path / "blobs" / DRAFTS).iterdir()) == []
