"""Files as people have them, from the POST through a worker to the file that comes back."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests import damaged
from tests.contracts.api_fixtures import open_house
from tests.contracts.serving import sent, served
from tests.unit.pictures import image, noise, saved

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
