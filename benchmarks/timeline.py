"""`python -m benchmarks.timeline OUT.png`: a picture of when each thread of a worker does what, with photos in bulk.

The real worker, rewired to write that down (`recorded.py`). What the picture shows is also printed.
"""

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont

from benchmarks.home import Home
from benchmarks.script import HEIGHT, WIDTH, photos
from shared.jobs.job import Lane

STAGES = {
    "decode": ("decodes", "#7aa6c2"), "wait": ("waits for the device", "#e9e9e4"), "compute": ("computes", "#d98e4a"),
    "encode": ("encodes", "#8fb58a"), "preview": ("makes previews", "#c9b46a"), "answer": ("waits for its commit", "#f4f4ef"),
    "commit": ("syncs and commits", "#a583b5"), "claim": ("claims", "#5b6770"),
}  # fmt: skip
BUSY = ("decode", "encode", "preview", "commit", "claim")  # beside the device
BACK, INK, FAINT = "#ffffff", "#333333", "#d0d0cc"
SHARP = 2  # it is drawn so many times as large as it is told below
LEFT, TOP, RIGHT, BOTTOM = 130, 62, 20, 76
LANE, GAP, ACROSS = 24, 6, 1180


@dataclass(frozen=True)
class Span:
    """What a thread did, and when; seconds from the first."""

    thread: str
    stage: str
    began: float
    ended: float


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--photos", "count", default=40, show_default=True)
@click.option("--shown", "seconds", default=4.0, show_default=True, help="Seconds from the middle that are drawn.")
def main(out: Path, count: int, seconds: float) -> None:
    """Draw it."""
    spans = _measured(count)
    first, last = (pick(span.began for span in spans if span.stage == "compute") for pick in (min, max))
    begin = max(first, (first + last - seconds) / 2)
    told = _told(spans, first, last)
    print(told)
    _drawn(_within(spans, begin, min(last, begin + seconds)), f"{count} photos of {WIDTH}x{HEIGHT} in bulk. {told}").save(
        out, optimize=True
    )


def _measured(count: int) -> list[Span]:
    """The spans of a worker that has restored one photo before, so that its network is there."""
    (_, warm), *files = photos(count + 1)
    with tempfile.TemporaryDirectory(prefix="lacuna-bench-") as folder, Home() as home:
        written = Path(folder) / "spans"
        home.start("benchmarks.recorded", str(written), "worker.app", "worker")
        home.wait(home.put(warm, WIDTH, HEIGHT))
        before = len(_lines(written))
        for job_id in [home.put(data, WIDTH, HEIGHT, Lane.BULK) for _, data in files]:
            home.wait(job_id)
        return [Span(*line) for line in _lines(written)[before:]]


def _lines(path: Path) -> list[tuple[str, str, float, float]]:
    return [tuple(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _told(spans: Sequence[Span], first: float, last: float) -> str:
    """Shares of the time from the first call of the network to the last."""
    within = _within(spans, first, last)
    computing = _merged(within, ("compute",))
    beside = _merged(within, BUSY)
    whole = last - first
    both = _length(computing) + _length(beside) - _length(_merged(within, ("compute", *BUSY)))
    return (
        f"The network computes {_length(computing) / whole:.0%} of the time; "
        f"of the time in which others decode, encode or commit, {both / _length(beside):.0%} overlaps with that."
    )


def _within(spans: Iterable[Span], begin: float, end: float) -> list[Span]:
    """What of them lies between, with times from `begin`."""
    return [
        Span(span.thread, span.stage, max(span.began, begin) - begin, min(span.ended, end) - begin)
        for span in spans
        if span.began < end and span.ended > begin
    ]


def _merged(spans: Iterable[Span], stages: Sequence[str]) -> list[tuple[float, float]]:
    """When at least one thread is at one of the stages."""
    found: list[tuple[float, float]] = []
    for began, ended in sorted((span.began, span.ended) for span in spans if span.stage in stages):
        if found and began <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], ended)
        else:
            found.append((began, ended))
    return found


def _length(stretches: Iterable[tuple[float, float]]) -> float:
    return sum(ended - began for began, ended in stretches)


# -- the picture --------------------------------------------------------------------------------------------------------


def _drawn(spans: Sequence[Span], title: str) -> Image.Image:
    threads = sorted({span.thread for span in spans}, key=lambda name: (name.startswith("committer"), name))
    end = max(span.ended for span in spans)
    size = LEFT + ACROSS + RIGHT, TOP + (LANE + GAP) * (len(threads) + 1) + BOTTOM
    image = Image.new("RGB", (SHARP * size[0], SHARP * size[1]), BACK)
    draw = ImageDraw.Draw(image)
    _text(draw, 16, 18, title, 15)
    bottom = TOP + (LANE + GAP) * (len(threads) + 1)
    for tenth in range(int(end * 2) + 1):
        x = LEFT + ACROSS * tenth / 2 / end
        draw.line(_scaled(x, TOP - 4, x, bottom), FAINT, SHARP)
        _text(draw, x - 8, bottom + 4, f"{tenth / 2:g} s", 12)
    _lane(draw, TOP, "device", [span for span in spans if span.stage == "compute"], end)
    for number, thread in enumerate(threads, 1):
        name = "committer" if thread.startswith("committer") else f"thread {number}"
        _lane(draw, TOP + (LANE + GAP) * number, name, [span for span in spans if span.thread == thread], end)
    _legend(draw, bottom + 36)
    return image.quantize(64)


def _lane(draw: ImageDraw.ImageDraw, top: int, name: str, spans: Iterable[Span], end: float) -> None:
    _text(draw, 16, top + 4, name, 13)
    for span in sorted(spans, key=lambda span: span.began):
        left, right = (LEFT + ACROSS * at / end for at in (span.began, span.ended))
        draw.rectangle(_scaled(left, top, max(right, left + 0.5), top + LANE), STAGES[span.stage][1])


def _legend(draw: ImageDraw.ImageDraw, top: int) -> None:
    left = LEFT
    for words, colour in STAGES.values():
        draw.rectangle(_scaled(left, top, left + 14, top + 14), colour, FAINT)
        _text(draw, left + 20, top - 1, words, 13)
        left += 42 + round(_font(13).getlength(words) / SHARP)


def _text(draw: ImageDraw.ImageDraw, left: float, top: float, words: str, size: int) -> None:
    draw.text((SHARP * left, SHARP * top), words, INK, _font(size))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(SHARP * size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font


def _scaled(*sides: float) -> list[float]:
    return [SHARP * side for side in sides]


if __name__ == "__main__":
    main()
