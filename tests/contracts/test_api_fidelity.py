"""Files as people have them, from the POST through a worker to the file that comes back."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests import damaged
from tests.contracts.api_fixtures import open_house
from tests.contracts.serving import sent, served, worker_of
from tests.promises import wiring
from tests.unit.pictures import image, noise, reopened, saved

RGB = noise(31, 17, 3)
DEEP = np.random.default_rng(0).integers(0, 65_536, (31, 17, 3), dtype=np.uint16)


@pytest.mark.parametrize(
    ("format_", "ending", "kind"),
    [("PNG", "png", "image/png"), ("TIFF", "tif", "image/tiff"), ("WEBP", "webp", "image/webp"), ("BMP", "bmp", "image/bmp")],
)
def test_a_file_of_every_lossless_format_comes_back_bit_for_bit_under_its_name(
    tmp_path: Path, format_: str, ending: str, kind: str
) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    with open_house(tmp_path) as house:
        job, answer = served(house, saved(image(RGB), format_, **options), f"scan 7.{ending}")
        assert (job["state"], job["notes"], job["input"]["format"].upper()) == ("succeeded", [], format_)
        assert job["result"]["type"] == answer.content_type == kind
        assert answer.headers["Content-Disposition"] == f'attachment; filename="scan 7.{ending}"'
        assert np.array_equal(seen(answer.data), RGB)


def seen(data: bytes) -> Any:
    """Pixels by OpenCV, in the order of the file."""
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels[:, :, ::-1] if pixels.ndim == 3 else pixels


@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_16_bits_go_through_the_network_bit_for_bit(tmp_path: Path, ending: str) -> None:
    for pixels in (DEEP, DEEP[:, :, 0]):
        with open_house(tmp_path) as house:
            job, answer = served(
                house, cv2.imencode(ending, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes(), f"scan{ending}"
            )
            assert (job["state"], job["notes"], job["input"]["bits"], job["result"]["bits"]) == ("succeeded", [], 16, 16)
            assert np.array_equal(seen(answer.data), pixels)


@pytest.mark.parametrize(
    ("format_", "named"), [("png", "a.tif.png"), ("jpeg", "a.tif.jpg"), ("webp", "a.tif.webp"), ("bmp", "a.tif.bmp"), ("tiff", "a.tif")]
)
def test_a_file_whose_format_changes_keeps_its_whole_name(tmp_path: Path, format_: str, named: str) -> None:
    with open_house(tmp_path) as house:
        job, answer = served(house, cv2.imencode(".tiff", DEEP)[1].tobytes(), "a.tif", format=format_)
        assert answer.headers["Content-Disposition"] == f"attachment; filename={named}"
        deep = format_ in {"png", "tiff"}
        assert (job["result"]["bits"], job["notes"]) == ((16, []) if deep else (8, ["depth_reduced"]))


class Darker(wiring.Identity):
    """A network that leaves half of the light, and none of its blue."""

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return inputs[0] * np.array([0.5, 0.5, 0], np.float32)


@pytest.mark.parametrize("channels", [3, 4])
def test_the_strength_asked_for_is_the_part_of_the_change_that_is_made_and_alpha_stays(tmp_path: Path, channels: int) -> None:
    before = np.random.default_rng(0).integers(0, 65_536, (31, 17, channels), dtype=np.uint16)
    with open_house(tmp_path) as house:
        picture = cv2.imencode(".png", before)[1].tobytes()
        jobs = [house.restored(picture=picture, **fields) for fields in ({}, {"strength": "0.25"}, {"strength": "1"})]
        wiring.work(wiring.with_network(worker_of(house), Darker()))
        whole, quarter, all_of_it = (house.get(f"/v1/jobs/{job.id}/result").data for job in jobs)
    assert whole == all_of_it
    after, part = (np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), float) for data in (whole, quarter))
    assert np.abs(part - (before + 0.25 * (after - before))).max() <= 0.63, "it is rounded twice"
    assert np.array_equal(part[:, :, 3:], before[:, :, 3:])
    assert (after != before).any()


def test_the_quality_asked_for_is_that_of_the_file_also_when_it_is_done_again(tmp_path: Path) -> None:
    with open_house(tmp_path) as house:
        job, answer = served(house, saved(image(RGB), "JPEG", quality=95), "a.jpg", quality="40")
        again = house.post(f"/v1/jobs/{job['id']}/retry").json
        wiring.work(worker_of(house))
        expected = reopened(saved(image(RGB), "JPEG", quality=40))
        for data in (answer.data, house.get(f"/v1/jobs/{again['id']}/result").data):
            assert getattr(reopened(data), "quantization") == getattr(expected, "quantization")  # noqa: B009  # only a JPEG has one


def test_cmyk_and_the_pictures_behind_the_first_are_told_in_the_job(tmp_path: Path) -> None:
    with open_house(tmp_path) as house:
        job, _ = served(house, saved(Image.new("CMYK", (9, 9), (9, 90, 200, 3)), "JPEG"), "print.jpg")
        assert (job["input"]["mode"], job["notes"]) == ("CMYK", ["converted_from_cmyk"])
        photo = saved(image(RGB), "MPO", save_all=True, append_images=[image(RGB)])
        assert served(house, photo, "phone.jpg")[0]["notes"] == ["secondary_images_dropped"]


@pytest.mark.parametrize("format_", ["jpeg", "webp"])
def test_a_picture_too_long_for_a_format_is_refused_as_one(tmp_path: Path, format_: str) -> None:
    with open_house(tmp_path) as house:
        answer = house.restore(saved(Image.new("L", (65_501, 1))), format=format_)
        assert (answer.status_code, answer.json["code"]) == (422, "invalid_field")
        assert house.left_behind() == {}


def test_damaged_files_are_refused_or_end_as_jobs_and_leave_nothing_behind(tmp_path: Path) -> None:
    with open_house(tmp_path, max_pixels=damaged.MAX_PIXELS) as house:
        outcomes = sent(house, range(1, 200, 4))
    assert min(outcomes["succeeded"], outcomes["failed"], outcomes["image_truncated"]) > 2, "the files are too damaged to show much"
