"""POST /v1/restorations: what is accepted, what is refused, and that a refusal leaves nothing."""

import errno
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from api import uploads
from shared.database.engine import open_database
from shared.database.tables import reservations
from shared.jobs.job import State
from shared.jobs.store import Reservation
from tests.bad_files import BAD
from tests.contracts.api_fixtures import SOON, Behind, House, code, gif, jpeg, manifest, open_house, png

URL = "/v1/restorations"
BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture
def house(tmp_path: Path, database: str) -> Iterator[House]:
    with open_house(tmp_path, database, max_upload=2_000_000, max_pixels=10_000) as opened:
        yield opened


@pytest.fixture(scope="module")
def refusing_house(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[House]:
    """One for all refusals: they leave nothing."""
    with open_house(tmp_path_factory.mktemp("refusing"), database, max_upload=2_000_000, max_pixels=10_000) as opened:
        opened.ports.models.register([manifest(), manifest("fill", task="inpaint")])
        yield opened


@pytest.fixture(scope="module")
def lasting_house(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("lasting"), database) as opened:
        yield opened


def part(disposition: str, data: bytes = b"") -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


IMAGE = part('name="image"; filename="a.png"', png())


# -- accepted -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("picture", "kind"), [(png(), "PNG"), (jpeg(), "JPEG"), (png() + b"trailing", "PNG")])
def test_a_picture_is_answered_with_202_and_where_its_job_is(house: House, picture: bytes, kind: str) -> None:
    answer = house.restore(picture, name="scan 7.png", label="mine", headers={"X-Request-Id": "abc-1"})
    job = answer.json
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert answer.headers["Retry-After"] == "1"
    assert "Preference-Applied" not in answer.headers
    assert "Idempotent-Replayed" not in answer.headers
    assert (job["state"], job["model"], job["label"], job["owner"]) == ("queued", "denoise@1", "mine", "local")
    assert (job["input"]["name"], job["input"]["format"]) == ("scan 7.png", kind)
    assert (job["input"]["bytes"], job["input"]["sha256"]) == (len(picture), hashlib.sha256(picture).hexdigest())
    assert "key" not in job["input"]
    assert job["params"] == {"format": "keep", "speed": "normal"}
    stored = house.job(job["id"])
    assert house.files() == [stored.input["key"]]
    assert (house.blobs / stored.input["key"]).read_bytes() == picture
    assert stored.request_id == "abc-1"


def test_quality_and_strength_are_shown_where_they_were_given(house: House) -> None:
    job = house.restore(jpeg(), quality="85", strength="0.5").json
    assert job["params"] == {"format": "keep", "speed": "normal", "quality": 85, "strength": 0.5}
    assert house.restore(format="webp", quality="1", strength="1").json["params"]["quality"] == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"quality": "90"}, "A PNG is written without loss; leave `quality` out, or restore into a JPEG or WebP."),
        ({"format": "tiff", "quality": "90"}, "A TIFF is written without loss; leave `quality` out, or restore into a JPEG or WebP."),
    ],
)
def test_a_quality_that_nothing_has_is_refused_with_a_sentence(house: House, fields: dict[str, Any], said: str) -> None:
    refused = house.restore(**fields).json
    assert (refused["detail"], [error["field"] for error in refused["errors"]]) == (said, ["quality"])


def test_the_bell_rings_once_in_the_job_s_lane_and_after_the_row_exists(house: House) -> None:
    job = house.restored(lane="bulk")
    assert house.bells.rung == [("bulk", job.id)]
    assert house.bells.early == []


def test_an_upload_of_exactly_the_limit_is_received(tmp_path: Path) -> None:
    sent = body(IMAGE)
    with open_house(tmp_path, max_upload=len(sent)) as house:
        assert house.post(URL, data=sent, content_type=FORM).status_code == 202
        assert code(house.post(URL, data=sent + b" ", content_type=FORM)) == "upload_too_large"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\x\\a.png", "a\0b.png", ".drafts", "é😀.png", " "])
def test_a_name_from_a_user_is_never_a_path_on_the_server(house: House, tmp_path: Path, name: str) -> None:
    job = house.restored(name=name)
    assert {path.name for path in tmp_path.iterdir()} <= {"blobs", "lacuna.db", "lacuna.db-wal", "lacuna.db-shm"}
    assert house.files() == [f"{job.id[-2:]}/{job.id}/upload"]


# -- refused ------------------------------------------------------------------------------------------------------------


def with_parts(mask: bytes | None = None, reference: bytes | None = None, **fields: str) -> dict[str, Any]:
    files = {"mask": mask, "reference": reference}
    parts = [part(f'name="{name}"; filename="{name}.png"', data) for name, data in files.items() if data is not None]
    return {"data": body(IMAGE, *parts, *[part(f'name="{name}"', value.encode()) for name, value in fields.items()])}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no image part": ({"data": body(part('name="label"', b"x"))}, "invalid_field"),
    "image as text": ({"data": body(part('name="image"', png()))}, "invalid_field"),
    "empty file": ({"data": body(part('name="image"; filename="a.png"'))}, "image_empty"),
    "nothing chosen": ({"data": body(part('name="image"; filename=""'))}, "image_empty"),
    "GIF": ({"picture": gif()}, "unsupported_format"),
    **{name: ({"picture": data}, expected) for name, (data, expected) in BAD.items()},
    "truncated PNG": ({"picture": png()[:-6]}, "image_truncated"),
    "truncated JPEG": ({"picture": jpeg()[:40]}, "image_truncated"),
    "damaged PNG": ({"picture": png().replace(b"IHDR", b"IHDX")}, "image_corrupt"),
    "animated PNG": ({"picture": png(animated=True)}, "multiple_frames"),
    "too many pixels": ({"picture": png(101, 100)}, "too_many_pixels"),
    "unknown field": ({"fields": {"sharpness": "3"}}, "unknown_field"),
    "field of a later issue": ({"fields": {"sigma": "25"}}, "unknown_field"),
    "quality of a PNG": ({"fields": {"quality": "90"}}, "invalid_field"),
    "quality of a JPEG that becomes a TIFF": ({"picture": jpeg(), "fields": {"quality": "90", "format": "tiff"}}, "invalid_field"),
    "quality of what is filled": (with_parts(mask=png(), task="inpaint", quality="90"), "invalid_field"),
    **{f"quality {given}": ({"picture": jpeg(), "fields": {"quality": given}}, "invalid_field") for given in ("0", "101", "9.5", "", "a")},
    **{f"strength {given}": ({"fields": {"strength": given}}, "invalid_field") for given in ("0", "1.01", "-1", "nan", "inf", "", "a")},
    "strength of filling": (with_parts(mask=png(), task="inpaint", strength="0.5"), "invalid_field"),
    "unknown task": ({"fields": {"task": "sharpen"}}, "unknown_task"),
    "unknown model": ({"fields": {"model": "nobody@7"}}, "unknown_model"),
    "unknown version": ({"fields": {"model": "denoise@999999999"}}, "unknown_model"),
    "unknown alias": ({"fields": {"model": "denoise@prod"}}, "unknown_model"),
    "version of another script": ({"fields": {"model": "denoise@²"}}, "unknown_model"),
    "version no database holds": ({"fields": {"model": "denoise@99999999999999999999"}}, "unknown_model"),
    "bad format": ({"fields": {"format": "gif"}}, "invalid_field"),
    "bad speed": ({"fields": {"speed": "8"}}, "invalid_field"),
    "bad lane": ({"fields": {"lane": "train"}}, "invalid_field"),
    "a label that no database can hold": ({"fields": {"label": "a\0b"}}, "invalid_field"),
    "long label": ({"fields": {"label": "x" * 201}}, "invalid_field"),
    "label as a file": ({"data": body(IMAGE, part('name="label"; filename="l"', b"x"))}, "invalid_field"),
    "image twice": ({"data": body(IMAGE, IMAGE)}, "invalid_field"),
    "image as file and text": ({"data": body(IMAGE, part('name="image"', b"x"))}, "invalid_field"),
    "field twice": ({"data": body(IMAGE, part('name="label"', b"x"), part('name="label"', b"y"))}, "invalid_field"),
    "long file name": ({"data": body(part(f'name="image"; filename="{"n" * 256}"', png()))}, "invalid_field"),
    "callback": ({"fields": {"callback_url": "http://10.0.0.1/"}}, "callbacks_not_offered"),
    "mask": ({"data": body(IMAGE, part('name="mask"; filename="m.png"', png()))}, "unknown_field"),
    "model of another task": ({"fields": {"model": "fill@1"}}, "model_task"),
    "denoiser for inpainting": (with_parts(mask=png(), task="inpaint", model="denoise@1"), "model_task"),
    "inpaint without a mask": ({"fields": {"task": "inpaint"}}, "mask_missing"),
    "mask as text": ({"data": body(IMAGE, part('name="task"', b"inpaint"), part('name="mask"', png()))}, "unknown_field"),
    "mask of another size": (with_parts(mask=png(4, 2), task="inpaint"), "mask_size"),
    "mask of as many pixels": (with_parts(mask=png(6, 1), task="inpaint"), "mask_size"),
    "empty mask file": (with_parts(mask=b"", task="inpaint"), "image_empty"),
    "truncated mask": (with_parts(mask=png()[:-6], task="inpaint"), "image_truncated"),
    "damaged mask": (with_parts(mask=png().replace(b"IHDR", b"IHDX"), task="inpaint"), "image_corrupt"),
    "mask that is no picture": (with_parts(mask=gif(), task="inpaint"), "unsupported_format"),
    "mask with too many pixels": (with_parts(mask=png(101, 100), task="inpaint"), "too_many_pixels"),
    "JPEG of known pixels": (with_parts(mask=png(), task="inpaint", format="jpeg"), "invalid_field"),
    "reference of another size": (with_parts(reference=png(4, 2)), "reference_size"),
    "empty reference file": (with_parts(reference=b""), "image_empty"),
    "truncated reference": (with_parts(reference=png()[:-6]), "image_truncated"),
    "damaged reference": (with_parts(reference=png().replace(b"IHDR", b"IHDX")), "image_corrupt"),
    "mask twice": ({"data": body(IMAGE, *[part('name="mask"; filename="m.png"', png())] * 2)}, "invalid_field"),
    "a field in the query": ({"query_string": {"label": "x"}}, "unknown_field"),
    "JSON": ({"data": b"{}", "content_type": "application/json"}, "malformed_multipart"),
    "URL-encoded": ({"data": b"image=x", "content_type": "application/x-www-form-urlencoded"}, "malformed_multipart"),
    "no content type": ({"data": body(IMAGE), "content_type": ""}, "malformed_multipart"),
    "no boundary": ({"data": body(IMAGE), "content_type": "multipart/form-data"}, "malformed_multipart"),
    "empty boundary": ({"data": body(IMAGE), "content_type": 'multipart/form-data; boundary=""'}, "malformed_multipart"),
    "wrong boundary": ({"data": body(IMAGE), "content_type": "multipart/form-data; boundary=other"}, "malformed_multipart"),
    "boundary that is not ASCII": ({"data": body(IMAGE), "content_type": "multipart/form-data; boundary=é"}, "malformed_multipart"),
    "blank body": ({"data": b"\r\n"}, "malformed_multipart"),
    "empty form": ({"data": body()}, "invalid_field"),
    "cut body": ({"data": body(IMAGE)[:-20]}, "malformed_multipart"),
    "cut within the file": ({"data": body(IMAGE)[:120]}, "malformed_multipart"),
    "part without a disposition": ({"data": f"--{BOUNDARY}\r\nX: y\r\n\r\nz\r\n".encode() + body(IMAGE)}, "malformed_multipart"),
    "part without a name": ({"data": body(IMAGE, part('filename="a"', b"x"), part("x=y", b"x"))}, "malformed_multipart"),
    "field without a name": ({"data": body(IMAGE, part("x=y", b"x"))}, "malformed_multipart"),
    "headers that are not UTF-8": ({"data": part('name="image"').replace(b"image", b"\xff") + body(IMAGE)}, "malformed_multipart"),
    "33 parts": ({"data": body(IMAGE, *[part(f'name="f{n}"', b"x") for n in range(32)])}, "upload_too_large"),
    "giant field": ({"data": body(IMAGE, part('name="label"', b"x" * 600_000))}, "upload_too_large"),
    "giant field name": ({"data": body(IMAGE, part(f'name="{"x" * 600_000}"', b"x"))}, "upload_too_large"),
    "giant file": ({"data": body(part('name="image"; filename="a"', png() + b"x" * 2_000_000))}, "upload_too_large"),
    "long key": ({"headers": {"Idempotency-Key": "k" * 256}}, "invalid_field"),
    "key with a space": ({"headers": {"Idempotency-Key": "a b"}}, "invalid_field"),
    "empty key": ({"headers": {"Idempotency-Key": ""}}, "invalid_field"),
    "key that is not ASCII": ({"headers": {"Idempotency-Key": "é"}}, "invalid_field"),
}


@pytest.mark.parametrize(("request_of", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_says_why_and_leaves_nothing(refusing_house: House, request_of: dict[str, Any], expected: str) -> None:
    for key in ({}, {"Idempotency-Key": "k1"}):
        options = dict(request_of)
        headers = key | options.pop("headers", {})
        if "data" in options:
            answer = refusing_house.post(URL, **{"content_type": FORM, "headers": headers, **options})
        else:
            data = {"image": (io.BytesIO(options.pop("picture", png())), "a.png"), **options.pop("fields", {})}
            answer = refusing_house.post(URL, data=data, headers=headers, content_type="multipart/form-data", **options)
        assert code(answer) == expected, answer.text
        assert refusing_house.left_behind() == {}
        assert len(answer.data) < 5_000


def test_more_jobs_than_an_owner_may_have_are_refused_until_one_has_ended(tmp_path: Path, database: str) -> None:
    with open_house(tmp_path, database, max_queued=2) as house:
        key = {"Idempotency-Key": "k1"}
        first, second = house.restore(headers=key).json, house.restored()
        before = house.left_behind()
        for headers in ({}, {"Idempotency-Key": "k2"}):
            answer = house.restore(headers=headers)
            assert (code(answer), answer.status_code, answer.headers["Retry-After"]) == ("too_many_jobs", 429, "10")
            assert "LACUNA_MAX_QUEUED" in answer.json["detail"]
        assert house.left_behind() == before
        assert house.restore(headers=key).json["id"] == first["id"], "the answer of an accepted job is lost"
        house.jobs.cancel("local", second.id)
        assert house.post(f"/v1/jobs/{second.id}/retry").status_code == 202
        assert code(house.post(f"/v1/jobs/{second.id}/retry")) == "too_many_jobs"


def test_a_refusal_names_the_field_and_those_there_are(house: House) -> None:
    answer = house.restore(sharpness="3").json
    assert answer["errors"][0]["field"] == "sharpness"
    assert "sharpness" in answer["detail"]
    assert "label" in answer["detail"]


def test_a_giant_field_name_does_not_come_back(house: House) -> None:
    answer = house.post(URL, data=body(IMAGE, part(f'name="{"é" * 100_000}"', b"x")), content_type=FORM)
    assert code(answer) == "unknown_field"
    assert len(answer.data) < 5_000


def test_a_key_is_free_again_after_a_refusal(house: House) -> None:
    headers = {"Idempotency-Key": "k1"}
    assert code(house.restore(gif(), headers=headers)) == "unsupported_format"
    assert house.restore(headers=headers).status_code == 202


class Untouchable(io.RawIOBase):
    """A body of a gigabyte that nobody may read."""

    at = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = {io.SEEK_SET: 0, io.SEEK_END: 10**9}[whence] + offset
        return self.at

    def readinto(self, _: Any) -> int:
        raise AssertionError("the body was read")


def test_a_request_over_the_limit_is_refused_before_its_body_is_read(house: House) -> None:
    answer = house.post(URL, input_stream=Untouchable(), content_type=FORM)
    assert code(answer) == "upload_too_large"
    assert house.left_behind() == {}


def test_a_full_disk_is_told_before_the_body_is_read(tmp_path: Path) -> None:
    with open_house(tmp_path, min_free=10**18) as house:
        answer = house.post(URL, input_stream=Untouchable(), content_type=FORM, headers={"Idempotency-Key": "k"})
        assert code(answer) == "storage_full"
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert house.left_behind() == {}


def test_a_disk_that_fills_up_during_the_upload_is_told_as_such(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shared.blobs.local.LocalDraft.write", full)
    answer = house.restore(headers={"Idempotency-Key": "k"})
    assert code(answer) == "storage_full"
    assert "Retry-After" in answer.headers
    assert house.left_behind() == {}


def test_more_uploads_than_there_is_room_for_are_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_room", threading.BoundedSemaphore(1))
    with uploads._room:
        answer = house.restore(headers={"Idempotency-Key": "k"})
    assert code(answer) == "too_many_uploads"
    assert "Retry-After" in answer.headers
    assert house.left_behind() == {}
    assert house.restore().status_code == 202
    assert house.restore().status_code == 202


def test_an_upload_that_lasts_too_long_is_refused(tmp_path: Path) -> None:
    with open_house(tmp_path, request_seconds=1e-9) as house:
        answer = house.restore(headers={"Idempotency-Key": "k"})
        assert (code(answer), answer.status_code) == ("upload_stalled", 408)
        assert house.left_behind() == {}


def test_a_locked_database_is_busy_and_loses_nothing(tmp_path: Path, database: str) -> None:
    with open_house(tmp_path, database, busy_ms=20) as house:
        house.restored()
        other = open_database(house.ports.settings.database).connect()
        other.execute(delete(reservations))  # it can be read meanwhile, and not be written
        if database == "postgresql":
            other.exec_driver_sql("LOCK TABLE jobs, reservations IN EXCLUSIVE MODE")
        for headers in ({}, {"Idempotency-Key": "k"}):
            answer = house.restore(headers=headers)
            assert (code(answer), answer.status_code) == ("database_busy", 503)
            assert int(answer.headers["Retry-After"]) > 0
        assert house.get("/v1/jobs").status_code == 200
        other.rollback()
        other.close()
        other.engine.dispose()
        assert len(house.bells.rung) == len(house.get("/v1/jobs").json["items"]) == 1
        assert not [name for name in house.files() if name.startswith(".drafts")]
        assert house.restore(headers={"Idempotency-Key": "k"}).status_code == 202


# -- Idempotency-Key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", "!" * 255, "a:b/c?d=e&f,g;h"])
def test_the_same_request_with_the_same_key_is_the_same_job(house: House, key: str) -> None:
    first = house.restore(label="x", headers={"Idempotency-Key": key})
    second = house.restore(label="x", headers={"Idempotency-Key": key})
    assert (second.status_code, second.headers["Idempotent-Replayed"]) == (202, "true")
    assert second.headers["Location"] == first.headers["Location"]
    assert first.json["id"] == second.json["id"]
    assert len(house.files()) == len(house.bells.rung) == 1


@pytest.mark.parametrize("change", [{"picture": png(4, 4)}, {"label": "y"}, {"name": "b.png"}, {"lane": "bulk"}, {"sharpness": "1"}])
def test_another_request_with_the_same_key_is_a_mismatch(house: House, change: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "k"}
    job = house.restored(headers=headers)
    assert code(house.restore(headers=headers, **change)) == "idempotency_mismatch"
    assert house.files() == [job.input["key"]]
    assert house.bells.rung == [(job.lane, job.id)]
    assert house.restore(headers=headers).json["id"] == job.id


def test_a_key_still_being_received_is_in_progress(house: House) -> None:
    held = house.jobs.reserve("local", "k")
    assert isinstance(held, Reservation)
    answer = house.restore(headers={"Idempotency-Key": "k"})
    assert (code(answer), answer.status_code) == ("idempotency_in_progress", 409)
    assert int(answer.headers["Retry-After"]) > 0
    assert house.files() == []
    house.jobs.drop_reservation(held)
    assert house.restore(headers={"Idempotency-Key": "k"}).status_code == 202


def test_an_upload_whose_key_was_taken_over_leaves_nothing_of_its_own(house: House) -> None:
    class TakesOver(io.BytesIO):
        """A body during which another request takes the lapsed key over."""

        def readinto(self, buffer: Any, /) -> int:
            with house.engine.begin() as connection:
                connection.execute(update(reservations).values(token=2))
            return super().readinto(buffer)

    sent = body(IMAGE)
    answer = house.post(URL, input_stream=TakesOver(sent), content_length=len(sent), content_type=FORM, headers={"Idempotency-Key": "k"})
    assert code(answer) == "idempotency_in_progress"
    assert (house.files(), house.bells.rung) == ([], [])
    assert house.count(reservations) == 1


# -- Prefer: wait -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefer", ["wait=30", "respond-async, wait=30", 'wait="30"', "wait = 30;x", "wait=600"])
def test_prefer_wait_is_answered_with_the_final_job(house: House, prefer: str) -> None:
    request = Behind(lambda: house.restore(headers={"Prefer": prefer}))
    house.succeed(house.bells.heard.get(timeout=SOON))
    answer = request.answer()
    assert (answer.status_code, answer.json["state"]) == (200, "succeeded")
    assert answer.headers["Preference-Applied"] == ("wait=60" if "600" in prefer else "wait=30")
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize(("prefer", "applied"), [("wait=0", "wait=0"), ("wait=-1", None), ("wait", None), ("await=3", None), ("x", None)])
def test_a_job_that_is_not_final_when_the_wait_is_over_is_answered_with_202(house: House, prefer: str, applied: str | None) -> None:
    answer = house.restore(headers={"Prefer": prefer})
    assert (answer.status_code, answer.headers.get("Preference-Applied")) == (202, applied)


def test_a_replay_waits_without_holding_room_for_an_upload(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.restored(headers={"Idempotency-Key": "k"})
    monkeypatch.setattr(uploads, "_room", threading.BoundedSemaphore(1))
    request = Behind(lambda: house.restore(headers={"Idempotency-Key": "k", "Prefer": "wait=60"}))
    house.waiting(1)
    assert house.restore().status_code == 202
    house.jobs.cancel("local", job.id)
    answer = request.answer()
    assert (answer.status_code, answer.json["state"], answer.headers["Idempotent-Replayed"]) == (200, State.CANCELED, "true")


# -- anything at all ----------------------------------------------------------------------------------------------------

TOKENS = st.sampled_from(
    [
        b"\r\n", b"\n", b"\r", b"--", f"--{BOUNDARY}".encode(), f"--{BOUNDARY}--".encode(), b"Content-Disposition: form-data; ",
        b'name="image"; ',
        b'name="label"', b'filename="a.png"', b"filename*=UTF-8''a%0d%0ab", b"name*=UTF-8''%ff", b"Content-Type: text/plain; charset=utf-7",
        b"\0", b"\xff", b'"', b";", b"=", png(), b"\r\n\r\n", b"Content-Transfer-Encoding: base64\r\n", b"Content-Length: -1\r\n",
        b" ", b"label",
    ]
)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(st.one_of(TOKENS, st.binary(max_size=20)), max_size=25).map(b"".join), st.booleans())
@example(part("name=\"image\"; filename*=UTF-8''a%0d%0aX-Evil:%201", png()), True)
@example(part('name="image"; filename="a.png"', png()) + part("name*=UTF-8''%00", b"\0"), True)
@example(part('name="image"; filename="a.png"', png()) + part('name="label"', b"\0\xff"), True)
def test_no_body_makes_the_service_fail(lasting_house: House, sent: bytes, ended: bool) -> None:
    answer = lasting_house.post(URL, data=sent + (body() if ended else b""), content_type=FORM)
    assert answer.status_code in (202, 400, 413, 415, 422), answer.text


@settings(max_examples=80)
@given(st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n"), max_size=60), st.sampled_from(["", "multipart/form-data;"]))
def test_no_content_type_makes_the_service_fail(lasting_house: House, kind: str, start: str) -> None:
    assert lasting_house.post(URL, data=body(IMAGE), content_type=start + kind).status_code in (202, 400)


@settings(max_examples=80)
@given(st.fixed_dictionaries({}, optional={name: st.text(max_size=220) for name in ("task", "model", "format", "lane", "label", "x")}))
@example({"label": "\0"})
@example({"model": "denoise@0"})
def test_no_field_makes_the_service_fail(lasting_house: House, fields: dict[str, Any]) -> None:
    answer = lasting_house.restore(**fields)
    assert answer.status_code in (202, 422), answer.text
    assert answer.status_code == 422 or json.loads(answer.data)["label"] == fields.get("label")


def test_a_picture_that_no_jpeg_can_hold_is_refused_as_one_and_taken_as_it_is(tmp_path: Path) -> None:
    def ask(house: House, wanted: str) -> Any:
        data = {"image": (io.BytesIO(png(65_501, 1)), "long.png"), "format": wanted}
        return house.post(URL, data=data, content_type="multipart/form-data")

    with open_house(tmp_path) as house:
        assert code(ask(house, "jpeg")) == "invalid_field"
        assert ask(house, "keep").status_code == 202
