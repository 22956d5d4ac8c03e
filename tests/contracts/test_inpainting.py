"""From HTTP to pixels: holes are filled, known pixels come back as they were, and a reference tells how well it went."""

import io
import re
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from werkzeug.serving import make_server

from client.cli import main
from client.text import gain
from demo.photos import noisy, photo
from shared.blobs.local import LocalDraft
from shared.imaging import codec, masks, metrics, preview
from shared.imaging.pixels import Pixels
from shared.jobs.job import Job, Lane
from shared.models import registry
from tests.contracts.api_fixtures import House, open_house
from tests.promises import wiring
from tests.unit.pictures import decoded, image, noise, reopened, saved
from tests.unit.test_fidelity import tiff_of, with_extra
from trainer import masks as drawing
from trainer.execution import Network
from trainer.execution.openvino import OpenVinoExecutor
from worker.committer import Committer
from worker.keeper import Held
from worker.restoration import restore
from worker.upkeep.sweeper import sweep

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """The shipped network that fills, as a worker runs it."""
    network: Network = OpenVinoExecutor(tmp_path_factory.mktemp("networks"), "float32").load(registry.shipped_artifact("inpaint", 1))
    return network


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path, shipped=True) as opened:
        yield opened


def drawn(height: int, width: int, *boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A mask, white in each (top, bottom, left, right)."""
    mask = np.zeros((height, width, 1), np.uint8)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = 255
    return mask


def ended(house: House, tmp_path: Path, files: Files, name: str = "a.png", network: Any = None, **fields: str) -> Job:
    """What becomes of a request, after a worker's stretch of work; what fills is the classical method, unless a model is named."""
    if fields.get("task") == "inpaint":
        fields.setdefault("model", "inpaint-classic@1")
    sent = {part: (io.BytesIO(data), name if part == "image" else f"{part}.png") for part, data in files.items()}
    answer = house.post("/v1/restorations", data={**sent, **fields}, content_type="multipart/form-data")
    assert answer.status_code == 202, answer.text
    wiring.work(wiring.ports(tmp_path, network))
    return house.job(answer.json["id"])


def inpainted(house: House, tmp_path: Path, picture: bytes, mask: bytes, **fields: Any) -> Image.Image:
    job = ended(house, tmp_path, {"image": picture, "mask": mask}, task="inpaint", **fields)
    assert job.state == "succeeded", job.error
    assert (job.model, job.task) == ("inpaint-classic@1", "inpaint")
    assert job.result is not None
    assert (job.result["executor"], job.result["precision"]) == ("opencv", "float32")
    return reopened(house.get(f"/v1/jobs/{job.id}/result").data)


def error_of(job: Job) -> tuple[str, str]:
    assert job.state == "failed"
    assert job.error is not None
    return job.error["code"], job.error["detail"]


MASK_MODES = {
    "1 bit": lambda mask: Image.fromarray(mask[:, :, 0] > 0),
    "grey": lambda mask: Image.fromarray(mask[:, :, 0]),
    "nearly black": lambda mask: Image.fromarray(mask[:, :, 0] // 255),
    "one colour": lambda mask: Image.fromarray(np.dstack([mask[:, :, 0], *[0 * mask[:, :, 0]] * 2])),
    "palette": lambda mask: Image.fromarray(mask[:, :, 0]).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=2),
    "opaque": lambda mask: Image.fromarray(np.dstack([*[mask[:, :, 0]] * 3, np.full_like(mask, 255)])),
    "white on transparent white": lambda mask: Image.fromarray(np.dstack([*[np.full_like(mask, 255)] * 3, mask])),
}


@pytest.mark.parametrize("made", MASK_MODES.values(), ids=MASK_MODES)
def test_whatever_kind_of_picture_the_mask_is_its_marks_are_filled_and_all_else_stays(house: House, tmp_path: Path, made: Any) -> None:
    before, mask = noise(40, 61, 3), drawn(40, 61, (0, 3, 0, 5), (10, 20, 30, 60), (39, 40, 60, 61))
    after = np.asarray(inpainted(house, tmp_path, saved(image(before)), saved(made(mask))))
    hole = mask[:, :, 0] > 0
    assert np.array_equal(after[~hole], before[~hole])
    assert (after[hole] != before[hole]).mean() > 0.9


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_known_pixels_and_alpha_come_back_bit_for_bit_in_every_mode(house: House, tmp_path: Path, mode: str) -> None:
    before = noise(33, 47, len(mode))
    mask = drawn(33, 47, (5, 9, 5, 30))
    after = np.asarray(inpainted(house, tmp_path, saved(image(before)), saved(image(mask)), speed="best"))
    after = after.reshape(before.shape)
    hole = mask[:, :, 0] > 0
    assert np.array_equal(after[~hole], before[~hole])
    if mode in ("LA", "RGBA"):
        assert np.array_equal(after[:, :, -1], before[:, :, -1])


@pytest.mark.parametrize("box", [(20, 40, 20, 40), (0, 30, 0, 30), (0, 64, 40, 64)])
def test_what_a_hole_held_does_not_matter(house: House, tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    one, mask = noise(64, 64, 3), drawn(64, 64, box)
    other = np.where(mask > 0, np.uint8(7), one)
    first, second = (np.asarray(inpainted(house, tmp_path, saved(image(picture)), saved(image(mask)))) for picture in (one, other))
    assert np.array_equal(first, second)


def test_a_jpeg_comes_back_as_a_png_with_its_whole_name_and_its_decoded_pixels(house: House, tmp_path: Path) -> None:
    picture = saved(image(photo("chelsea")[:200, :200]), "JPEG", quality=80)
    mask = drawn(200, 200, (50, 60, 20, 180))
    job = ended(house, tmp_path, {"image": picture, "mask": saved(image(mask))}, name="cat.jpg", task="inpaint")
    assert job.result is not None, job.error
    assert job.result["type"] == "image/png"
    answer = house.get(f"/v1/jobs/{job.id}/result")
    assert "cat.jpg.png" in answer.headers["Content-Disposition"]
    hole = mask[:, :, 0] > 0
    assert np.array_equal(np.asarray(reopened(answer.data))[~hole], np.asarray(reopened(picture))[~hole])


@pytest.mark.parametrize("lossy", ["JPEG", "WEBP"])
@pytest.mark.parametrize("asked", ["tiff", "png"])
def test_a_lossy_picture_comes_back_in_the_format_that_was_asked_for(house: House, tmp_path: Path, lossy: str, asked: str) -> None:
    picture, mask = saved(image(noise(30, 40, 3)), lossy), drawn(30, 40, (3, 9, 3, 30))
    job = ended(house, tmp_path, {"image": picture, "mask": saved(image(mask))}, task="inpaint", format=asked)
    assert job.result is not None, job.error
    assert job.result["type"] == f"image/{asked}"
    after = np.asarray(reopened(house.get(f"/v1/jobs/{job.id}/result").data))
    hole = mask[:, :, 0] > 0
    assert np.array_equal(after[~hole], np.asarray(reopened(picture))[~hole])


def associated(depth: type[np.integer]) -> tuple[bytes, Pixels]:
    """A TIFF of noise whose colour is multiplied by its alpha, and the same picture with its colour divided by it."""
    white = np.iinfo(depth).max
    pixels = np.random.default_rng(0).integers(0, white, (30, 40, 4), dtype=depth, endpoint=True)
    pixels[:5, :, 3] = 0
    pixels[:, :, :3] = np.round(pixels[:, :, :3] * (pixels[:, :, 3:] / white))
    cover = np.maximum(pixels[:, :, 3:], 1).astype(np.float64)
    divided = np.round(np.minimum(pixels[:, :, :3] * (white / cover), white)).astype(depth)
    return with_extra(tiff_of(pixels), 1), np.dstack([divided, pixels[:, :, 3]])


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("asked", ["keep", "png"])
def test_colour_multiplied_by_its_alpha_is_filled_and_kept_also_where_it_is_divided_again(
    house: House, tmp_path: Path, asked: str, depth: type[np.integer]
) -> None:
    picture, divided = associated(depth)
    mask = drawn(30, 40, (3, 9, 3, 30))
    job = ended(house, tmp_path, {"image": picture, "mask": saved(image(mask))}, task="inpaint", format=asked)
    assert job.state == "succeeded", job.error
    after, before = decoded(house.get(f"/v1/jobs/{job.id}/result").data), decoded(picture)
    hole = mask[:, :, 0] > 0
    known = before.colour if asked == "keep" else divided[:, :, :3]
    assert np.abs(after.colour[~hole].astype(int) - known[~hole]).max() <= (asked == "png")  # float32 may round a half otherwise
    assert after.alpha is not None
    assert np.array_equal(after.alpha, divided[:, :, 3])


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("asked", ["keep", "png", "webp"])
def test_figures_are_of_colour_that_is_not_multiplied_by_alpha_whatever_the_formats(
    house: House, tmp_path: Path, asked: str, depth: type[np.integer]
) -> None:
    picture, divided = associated(depth)
    for reference in (picture, tiff_of(divided)):
        job = ended(house, tmp_path, {"image": picture, "reference": reference}, format=asked)  # by a network that changes nothing
        assert job.metrics is not None, job.error
        steps = 128 if "depth_reduced" in job.notes else 1
        assert max(job.metrics[of]["mae"] for of in ("output", "input")) <= steps, job.metrics


def test_a_preview_shows_colour_that_is_not_multiplied_by_alpha(house: House, tmp_path: Path) -> None:
    pixels = np.full((30, 40, 4), (100, 50, 20, 128), np.uint8)
    job = ended(house, tmp_path, {"image": with_extra(tiff_of(pixels), 1), "reference": with_extra(tiff_of(pixels), 1)})
    for of in ("input", "result", "reference"):
        shown = reopened(house.get(f"/v1/jobs/{job.id}/preview?of={of}").data)
        assert np.abs(np.asarray(shown.convert("RGBA"), int) - (199, 100, 40, 128)).max() <= 8, of


def test_a_mask_is_laid_on_the_picture_as_it_is_displayed(house: House, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    stored, mask = noise(30, 50, 3), drawn(50, 30, (0, 10, 0, 30))
    after = np.asarray(inpainted(house, tmp_path, saved(image(stored), exif=exif), saved(image(mask))))
    upright = np.rot90(stored, -1)
    assert np.array_equal(after[10:], upright[10:])
    assert not np.array_equal(after[:10], upright[:10])
    wrong = saved(image(drawn(30, 50, (0, 10, 0, 30))))
    found = error_of(ended(house, tmp_path, {"image": saved(image(stored), exif=exif), "mask": wrong}, task="inpaint"))
    assert found == ("mask_size", "The mask has 50 × 30 pixels, the picture, as it is displayed, 30 × 50.")


def test_scratches_over_a_photo_are_filled_far_better_than_they_were(house: House, tmp_path: Path) -> None:
    clean = photo("astronaut")[:300, :300]
    mask = drawn(300, 300, *((row, row + 3, 0, 300) for row in range(20, 300, 40)))
    scratched = np.where(mask > 0, np.uint8(255), clean)
    files = {"image": saved(image(scratched)), "mask": saved(image(mask)), "reference": saved(image(clean))}
    job = ended(house, tmp_path, files, task="inpaint")
    assert job.metrics is not None, job.error
    assert job.metrics["output"]["psnr"] > job.metrics["input"]["psnr"] + 15


@pytest.mark.parametrize("kind", ["strokes", "scratches", "dust", "boxes", "pixels-50", "pixels-80"])
def test_the_shipped_network_fills_better_than_the_classical_method_and_touches_nothing_else(
    house: House, tmp_path: Path, filler: Network, kind: str
) -> None:
    clean = photo("coffee")[:256, 100:420]
    hole = drawing.DRAWN[kind](256, 320, np.random.default_rng(3))
    holed = np.where(hole[:, :, np.newaxis], np.uint8(255), clean)
    files = {"image": saved(image(holed)), "mask": saved(Image.fromarray(hole)), "reference": saved(image(clean))}
    job = ended(house, tmp_path, files, network=filler, task="inpaint", model="inpaint@1")
    assert job.metrics is not None, job.error
    after = np.asarray(reopened(house.get(f"/v1/jobs/{job.id}/result").data))
    assert np.array_equal(after[~hole], clean[~hole])
    classic = ended(house, tmp_path, files, task="inpaint")
    assert classic.metrics is not None, classic.error
    assert job.metrics["output"]["psnr"] > classic.metrics["output"]["psnr"] + 0.5
    assert job.metrics["output"]["ssim"] > classic.metrics["output"]["ssim"]


def test_a_hole_far_larger_than_any_it_learnt_from_is_filled_with_what_is_around_it(house: House, tmp_path: Path, filler: Network) -> None:
    clean = photo("astronaut")[:400, :400]
    mask = drawn(400, 400, (50, 350, 50, 350))
    files = {"image": saved(image(np.where(mask > 0, np.uint8(0), clean))), "mask": saved(image(mask)), "reference": saved(image(clean))}
    filled, classic = (
        np.asarray(reopened(house.get(f"/v1/jobs/{job.id}/result").data)).astype(int)
        for job in (
            ended(house, tmp_path, files, network=filler, task="inpaint", model="inpaint@1"),
            ended(house, tmp_path, files, task="inpaint"),
        )
    )
    middle = np.s_[50:350, 50:350]
    errors = [np.mean((made[middle] - clean[middle]) ** 2) for made in (filled, classic)]
    assert errors[0] < errors[1] * 1.1
    assert np.percentile(filled[middle], 1) >= clean.min()


def damaged(data: bytes) -> bytes:
    """A file whose container is whole, and whose pixels are not."""
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 20]) + data[middle + 20 :]


DAMAGED = {
    "empty mask": ({"mask": saved(image(drawn(30, 40)))}, "mask_empty", "Draw"),
    "mask that is transparent": ({"mask": saved(Image.new("RGBA", (40, 30), (255, 255, 255, 0)))}, "mask_empty", "Draw"),
    "full mask": ({"mask": saved(image(drawn(30, 40, (0, 30, 0, 40))))}, "mask_full", "Leave black"),
    "mask damaged within": ({"mask": damaged(saved(image(noise(30, 40, 1))))}, "image_corrupt", "The mask: "),
    "reference damaged within": (
        {"mask": saved(image(drawn(30, 40, (1, 2, 1, 2)))), "reference": damaged(saved(image(noise(30, 40, 1))))},
        "image_corrupt", "The reference: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "code", "says"), DAMAGED.values(), ids=DAMAGED)
def test_what_only_decoding_shows_of_mask_and_reference_fails_the_job_and_names_them(
    house: House, tmp_path: Path, files: Files, code: str, says: str
) -> None:
    job = ended(house, tmp_path, {"image": saved(image(noise(30, 40, 3))), **files}, task="inpaint")
    found, detail = error_of(job)
    assert found == code
    assert detail.startswith(says)
    assert house.files() == sorted(f"{job.id[-2:]}/{job.id}/{part}" for part in ("upload", *files)), "a refused job left a result"


def test_a_result_whose_known_pixels_changed_is_never_kept(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = codec.encode
    monkeypatch.setattr(codec, "encode", lambda colour, source, format_: encode(colour ^ (colour == 9), source, format_))
    files = {"image": saved(image(noise(40, 40, 3))), "mask": saved(image(drawn(40, 40, (0, 9, 0, 9))))}
    job = ended(house, tmp_path, files, task="inpaint")
    assert error_of(job)[0] == "internal"
    assert not [name for name in house.files() if "result" in name]


def test_after_a_cancel_no_stage_begins(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    stages: list[str] = []

    def watched(owner: Any, name: str) -> None:
        stage = getattr(owner, name)

        def begin(*given: Any) -> Any:
            begun.append(f"{owner.__name__}.{name}")
            if len(begun) == canceled_in:
                held.lost.set()  # as the keeper would
            return stage(*given)

        monkeypatch.setattr(owner, name, begin)

    for owner, name in (
        (codec, "decode"), (codec, "encode"), (preview, "encode"), (masks, "assert_known"), (metrics, "judge"), (LocalDraft, "place"),
    ):  # fmt: skip
        watched(owner, name)
    part, mask = saved(image(noise(20, 20, 3))), saved(image(drawn(20, 20, (1, 2, 1, 2))))
    ports = wiring.ports(tmp_path)
    committer = Committer(ports.jobs, ports.blobs, ports.outputs)
    committer.start()
    for canceled_in in range(17, 0, -1):  # of 16: first in none, then in the last one, in the one before, …
        files = {name: (io.BytesIO(data), name) for name, data in (("image", part), ("reference", part), ("mask", mask))}
        assert house.post("/v1/restorations", data={**files, "task": "inpaint"}, content_type="multipart/form-data").status_code == 202
        (job,) = ports.jobs.claim("tests:1", [Lane.INTERACTIVE], 10**9, idle=True)
        held = Held(job)
        begun.clear()
        restore(held, ports, committer)
        stages = stages or begun.copy()
        assert len(stages) == 16, stages
        assert begun == stages[:canceled_in]
    committer.stop()


def test_what_is_not_needed_any_more_is_let_go_before_a_picture_is_encoded_and_judged(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = np.full((400, 500, 4), 30_000, np.uint16)
    marked = np.zeros_like(deep)
    marked[9:20, 9:20] = 65_535
    part, mask = tiff_of(deep, compression="deflate"), tiff_of(marked, compression="deflate")
    found: list[float] = []

    def measured(owner: Any, name: str) -> None:
        stage = getattr(owner, name)

        def begin(*given: Any) -> Any:
            found.append(tracemalloc.get_traced_memory()[0] / (400 * 500))
            return stage(*given)

        monkeypatch.setattr(owner, name, begin)

    measured(codec, "encode")
    measured(metrics, "judge")
    for _ in range(2):  # the first brings what is imported late
        found.clear()
        tracemalloc.start()
        try:
            job = ended(house, tmp_path, {"image": part, "mask": mask, "reference": part}, task="inpaint")
        finally:
            tracemalloc.stop()
        assert job.state == "succeeded", job.error
    assert found[0] < 27, "bytes a pixel: source 8, holes 1, reference 6, restored 6; and a little that stays"
    assert found[1] < 29, "source 8, holes 1, reference 6, the file's 8; and a little that stays"


def test_mask_and_reference_stay_with_their_job_and_the_sweeper_takes_what_no_row_names(house: House, tmp_path: Path) -> None:
    part = saved(image(noise(20, 20, 3)))
    job = ended(house, tmp_path, {"image": part, "mask": saved(image(drawn(20, 20, (1, 2, 1, 2)))), "reference": part}, task="inpaint")
    folder = f"{job.id[-2:]}/{job.id}"
    previews = [f"preview-{of}.1" for of in ("input", "result", "mask", "reference")]
    named = sorted(f"{folder}/{name}" for name in ("mask", "reference", "result.1", "upload", *previews))
    assert house.files() == named
    stray = house.ports.blobs.draft()
    stray.write(b"x")
    stray.place(f"{folder}/result.9")
    sweep(house.jobs, house.ports.models, house.ports.datasets, house.ports.blobs, grace_seconds=-1)
    assert house.files() == named
    view = house.get(f"/v1/jobs/{job.id}").json
    assert (view["input"]["mask"]["name"], view["input"]["reference"]["width"]) == ("mask.png", 20)
    assert "key" not in str(view["input"])


# -- references ---------------------------------------------------------------------------------------------------------


def test_a_reference_gives_scikit_image_s_figures_of_output_and_input(house: House, tmp_path: Path) -> None:
    clean = photo("chelsea")[:120, :150]
    before = noisy(clean)
    job = ended(house, tmp_path, {"image": saved(image(before)), "reference": saved(image(clean))})
    view = house.get(f"/v1/jobs/{job.id}").json
    rows = house.get(view["links"]["metrics"]).json["items"]
    after = np.asarray(reopened(house.get(view["links"]["result"]).data))
    assert [(row["of"], row["protocol"]) for row in rows] == [("output", "lacuna-1"), ("input", "lacuna-1")]
    for row, picture in zip(rows, (after, before), strict=True):
        ssim = structural_similarity(
            clean, picture, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2
        )
        assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, picture, data_range=255), abs=1e-6)
        assert row["ssim"] == pytest.approx(ssim, abs=1e-6)
        assert view["metrics"][row["of"]] == {name: row[name] for name in ("psnr", "ssim", "mse", "rmse", "mae")}


def test_the_output_s_figures_are_those_of_the_file_not_of_what_was_encoded(house: House, tmp_path: Path) -> None:
    clean = photo("chelsea")[:64, :64]
    files = {"image": saved(image(clean)), "reference": saved(image(clean))}
    job = ended(house, tmp_path, files, format="jpeg")  # the network changes nothing, JPEG does
    assert job.metrics is not None, job.error
    assert job.metrics["output"]["mse"] > 0
    assert job.metrics["input"]["mse"] == 0


def test_equal_and_tiny_pictures_have_figures_that_json_can_hold(house: House, tmp_path: Path) -> None:
    part = saved(image(noise(5, 7, 3)))
    job = ended(house, tmp_path, {"image": part, "reference": part})
    answer = house.get(f"/v1/jobs/{job.id}")
    nothing = {"psnr": None, "ssim": None, "mse": 0.0, "rmse": 0.0, "mae": 0.0}
    assert answer.json["metrics"] == {"protocol": "lacuna-1", "output": nothing, "input": nothing}
    assert "Infinity" not in answer.text
    told = {"of": "input", "protocol": "lacuna-1", **nothing, **dict.fromkeys(("epoch", "split", "picture", "loss", "seconds"))}
    assert house.get(f"/v1/jobs/{job.id}/metrics").json["items"][1] == told


def test_a_grey_reference_counts_as_three_equal_channels(house: House, tmp_path: Path) -> None:
    grey, colour = noise(20, 20, 1), noise(20, 20, 3, seed=1)
    job = ended(house, tmp_path, {"image": saved(image(colour)), "reference": saved(image(grey))})
    assert job.metrics is not None, job.error
    assert job.metrics["input"]["mse"] == pytest.approx(float(np.mean((colour.astype(float) - grey) ** 2)))


def test_a_reference_that_is_displayed_in_another_size_fails_the_job(house: House, tmp_path: Path) -> None:
    part = saved(image(noise(30, 40, 3)))
    job = ended(house, tmp_path, {"image": part, "reference": saved(image(noise(40, 30, 3)))})
    assert error_of(job)[0] == "reference_size"


def test_a_job_without_a_reference_has_no_figures(house: House, tmp_path: Path) -> None:
    job = ended(house, tmp_path, {"image": saved(image(noise(20, 20, 3)))})
    view = house.get(f"/v1/jobs/{job.id}").json
    assert view["metrics"] is None
    assert "metrics" not in view["links"]
    assert house.get(f"/v1/jobs/{job.id}/metrics").json == {"items": [], "next": None}
    assert house.get("/v1/jobs/1/metrics").status_code == 400


# -- the command line ---------------------------------------------------------------------------------------------------


@pytest.fixture
def served(house: House, tmp_path: Path) -> Iterator[str]:
    """The address of the API, whose jobs a worker does as they come."""
    server = make_server("127.0.0.1", 0, house.app, threaded=True)
    ports = wiring.ports(tmp_path)

    def work() -> None:
        while house.bells.heard.get():
            wiring.work(ports)

    threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    yield f"http://127.0.0.1:{server.port}"
    house.bells.heard.put("")
    server.shutdown()
    for thread in threads:
        thread.join()
    server.server_close()


def test_the_command_fills_what_the_mask_marks_and_tells_how_much_better_it_became(served: str, tmp_path: Path) -> None:
    clean, mask = photo("coffee")[:120, :160], drawn(120, 160, (40, 44, 0, 160))
    paths = {name: tmp_path / name for name in ("scan.jpg", "mask.png", "clean.png")}
    paths["scan.jpg"].write_bytes(saved(image(np.where(mask > 0, np.uint8(0), clean)), "JPEG", quality=95))
    paths["mask.png"].write_bytes(saved(image(mask)))
    paths["clean.png"].write_bytes(saved(image(clean)))
    order = ["restore", "--task", "inpaint", "--mask", str(paths["mask.png"]), "--reference", str(paths["clean.png"])]
    done = CliRunner().invoke(main, ["--server", served, *order, str(paths["scan.jpg"])])
    assert done.exit_code == 0, done.output
    restored = tmp_path / "scan.restored.jpg.png"
    assert re.fullmatch(rf"{paths['scan.jpg']} -> {restored} \(\d\d\.\d\d dB, \d+\.\d\d dB more than before\)\n", done.output)
    after = np.asarray(reopened(restored.read_bytes()))
    hole = mask[:, :, 0] > 0
    assert np.array_equal(after[~hole], np.asarray(reopened(paths["scan.jpg"].read_bytes()))[~hole])
    shown = CliRunner().invoke(main, ["--server", served, "jobs"]).output
    job_id = shown.splitlines()[1].split()[0]
    assert re.search(r"quality +\d\d\.\d\d dB, ", CliRunner().invoke(main, ["--server", served, "jobs", job_id]).output)


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--task", "inpaint"], 1, "Inpainting needs a mask"),
        (["--mask", "mask.png"], 1, "task=inpaint does"),
        (["--task", "inpaint", "--mask", "none.png"], 1, "none.png does not exist"),
        (["--task", "inpaint", "--mask", "mask.png", "--out", "b.jpg"], 2, "would hold PNG"),
        (["--reference", "mask.png", "other.png"], 2, "compared with one picture"),
    ],
)
def test_the_command_says_what_is_wrong_with_mask_and_reference(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], status: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scan.jpg").write_bytes(saved(image(noise(20, 20, 3)), "JPEG"))
    Path("mask.png").write_bytes(saved(image(drawn(20, 20, (1, 2, 1, 2)))))
    done = CliRunner().invoke(main, ["--server", served, "restore", "scan.jpg", *options])
    assert (done.exit_code, says in done.output) == (status, True), done.output


@pytest.mark.parametrize(
    ("output", "before", "said"),
    [(30.0, 20.5, "30.00 dB, 9.50 dB more than before"), (20.5, 30.0, "20.50 dB, 9.50 dB less than before"),
     (None, 20.0, "equal to the reference"), (None, None, "equal to the reference"),
     (30.0, None, "30.00 dB; it was equal to the reference before")],
)  # fmt: skip
def test_the_gain_is_said_in_words_also_where_there_are_no_decibels(output: float | None, before: float | None, said: str) -> None:
    assert gain({"output": {"psnr": output}, "input": {"psnr": before}}) == said
