"""Previews: of what a job was sent and made, and of a file before there is a job."""

import io
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from api import previews
from shared import memory
from shared.jobs.job import Job, blob_key, preview_part
from tests.contracts.api_fixtures import SOON, Answer, Behind, House, code, gif, jpeg, open_house, png


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "home") as opened:
        yield opened


def with_previews(house: House) -> Job:
    job = house.succeed(house.restored().id)
    for of in ("input", "result"):
        draft = house.ports.blobs.draft()
        draft.write(of.encode())
        draft.place(blob_key(job.id, preview_part(of, job.token)))
    return job


def send(house: House, picture: bytes, name: str = "image", **fields: str) -> Answer:
    return house.post("/v1/previews", data={name: (io.BytesIO(picture), "a"), **fields}, content_type="multipart/form-data")


def test_a_preview_is_shown_as_safely_as_a_result(house: House) -> None:
    job = with_previews(house)
    link = house.get(f"/v1/jobs/{job.id}").json["links"]["preview"]
    answer, of_input = house.get(link), house.get(f"{link}?of=input")
    assert (answer.data, of_input.data) == (b"result", b"input")
    assert (answer.content_type, answer.content_length) == ("image/webp", 6)
    assert answer.headers["Content-Disposition"] == "attachment; filename=result.webp"
    result = house.get(f"/v1/jobs/{job.id}/result")
    for name in ("Content-Security-Policy", "Cross-Origin-Resource-Policy", "X-Content-Type-Options", "Cache-Control"):
        assert answer.headers[name] == result.headers[name]
    assert answer.headers["ETag"] != of_input.headers["ETag"]
    again = house.get(link, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_what_has_no_preview_says_why(house: House) -> None:
    waiting = house.restored()
    answer = house.get(f"/v1/jobs/{waiting.id}/preview?of=input")
    assert (code(answer), answer.status_code, answer.headers["Retry-After"]) == ("not_ready", 409, "1")
    house.jobs.cancel("local", waiting.id)
    assert code(house.get(f"/v1/jobs/{waiting.id}/preview")) == "canceled"
    failed = house.fail(house.restored().id)
    answer = house.get(f"/v1/jobs/{failed.id}/preview")
    assert (code(answer), answer.status_code) == ("image_corrupt", 409)
    done = with_previews(house)
    answer = house.get(f"/v1/jobs/{done.id}/preview?of=mask")
    assert (code(answer), answer.status_code) == ("preview_not_found", 404)
    assert code(house.get(f"/v1/jobs/{done.id}/preview?of=me")) == "invalid_field"
    house.jobs.expire(-1)
    assert code(house.get(f"/v1/jobs/{done.id}/preview")) == "result_expired"
    assert "preview" not in house.get(f"/v1/jobs/{done.id}").json["links"]


@pytest.mark.parametrize("picture", [jpeg(), png(2000, 30)])
def test_a_file_is_shown_before_there_is_a_job_and_nothing_is_stored(house: House, picture: bytes) -> None:
    answer = send(house, picture)
    assert (answer.status_code, answer.content_type) == (200, "image/webp")
    with Image.open(io.BytesIO(answer.data), formats=["WEBP"]) as shown, Image.open(io.BytesIO(picture)) as sent:
        assert shown.size == ((1600, 24) if sent.size == (2000, 30) else sent.size)
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    assert house.left_behind() == {}


def test_a_file_that_cannot_be_read_is_refused_as_a_job_would_be(house: House) -> None:
    whole = png(50, 50)
    middle = whole.index(b"IDAT") + 8
    damaged = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]  # only decoding shows it
    for sent, expected in (
        (b"", "image_empty"),
        (gif(), "unsupported_format"),
        (whole[:-20], "image_truncated"),
        (damaged, "image_corrupt"),
    ):
        assert code(send(house, sent)) == expected
        assert house.left_behind() == {}
    assert code(send(house, whole, sharpness="1")) == "unknown_field"
    assert code(send(house, whole, name="picture")) == "unknown_field"
    assert code(house.post("/v1/previews")) == "malformed_multipart"


def test_a_file_that_takes_too_much_memory_or_time_costs_only_its_child(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(previews, "BASE_BYTES", 1 << 20)
        patched.setattr(previews, "PIXEL_BYTES", 0)
        answer = send(house, png(9_000, 9_000))
        assert (code(answer), "memory" in answer.json["detail"]) == ("too_many_pixels", True)
    with monkeypatch.context() as patched:
        patched.setattr(previews, "SECONDS", 0)
        answer = send(house, png(9_000, 9_000))
        assert (code(answer), "long" in answer.json["detail"]) == ("too_many_pixels", True)
    assert house.left_behind() == {}
    assert send(house, jpeg()).status_code == 200


def test_a_child_that_breaks_is_our_fault_and_says_nothing_of_how(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.children.python", lambda *_: ["false"])
    answer = send(house, jpeg())
    assert (code(answer), answer.status_code) == ("internal", 500)


class Stalled(io.BytesIO):
    """A body of which no byte comes until it is let go."""

    def __init__(self) -> None:
        super().__init__(b"no form")
        self.asked, self.let_go = threading.Event(), threading.Event()

    def readinto(self, buffer: Any) -> int:
        self.asked.set()
        self.let_go.wait(SOON)
        return super().readinto(buffer)


def test_uploads_that_stall_keep_nobody_from_a_preview(house: House) -> None:
    bodies = [Stalled() for _ in range(previews.AT_ONCE)]
    form = "multipart/form-data; boundary=b"
    stalled = [Behind(partial(house.post, "/v1/previews", input_stream=body, content_type=form)) for body in bodies]
    try:
        assert all(body.asked.wait(SOON) for body in bodies)
        assert send(house, jpeg()).status_code == 200
    finally:
        for body in bodies:
            body.let_go.set()
    assert {code(request.answer()) for request in stalled} == {"malformed_multipart"}


def test_no_preview_is_made_when_the_disk_is_nearly_full(tmp_path: Path) -> None:
    with open_house(tmp_path, min_free=10**18) as house:
        answer = send(house, jpeg())
        assert (code(answer), answer.status_code, answer.headers["Retry-After"]) == ("storage_full", 503, "60")
        assert house.left_behind() == {}


def test_a_preview_takes_no_more_than_its_share_of_the_memory_for_pictures(tmp_path: Path) -> None:
    for share, expected in ((20_000_000, 422), (2_000_000_000, 200)):
        with open_house(tmp_path / str(share), memory=share) as house:
            assert send(house, png(9_000, 9_000)).status_code == expected


def test_without_a_setting_a_preview_takes_no_more_than_its_share_of_the_container_s(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (limit,))
    for container, expected in ((40_000_000, 422), (4_000_000_000, 200)):
        limit.write_text(f"{container}\n")
        assert send(house, png(9_000, 9_000)).status_code == expected


def test_only_so_many_previews_are_made_at_once(house: House) -> None:
    for _ in range(previews.AT_ONCE):
        assert previews._room.acquire(blocking=False)
    try:
        answer = send(house, jpeg())
        assert (code(answer), answer.status_code, answer.headers["Retry-After"]) == ("too_many_uploads", 503, "2")
    finally:
        for _ in range(previews.AT_ONCE):
            previews._room.release()
    assert send(house, jpeg()).status_code == 200
