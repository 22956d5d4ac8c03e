"""Figures of trainings and evaluations: as rows of the database, and as the client shows them."""

from typing import Any

import click

from client.learning import curve, epochs_of, learning_lines
from client.measured import measured_lines
from worker import figures

NUMBERS = {"psnr": 30.0, "ssim": 0.9, "mse": 65.0, "rmse": 8.0, "mae": 6.0}
LESS = NUMBERS | {"psnr": 20.0}


def shown(of: str, **cares: Any) -> dict[str, Any]:
    return {"of": of, "epoch": None, "split": None, "picture": None, "protocol": "p", "loss": None, "seconds": None, **NUMBERS, **cares}


def test_of_a_report_each_method_has_a_row_and_the_untouched_input_one_for_all() -> None:
    mean = {"method": "a@1", "sigma": 25.0, **NUMBERS, "input": LESS, "images": 2}
    report = {"protocol": "noise", "rows": [mean, mean | {"method": "b@1"}], "images": [mean | {"image": "x.png"}]}
    rows = figures.of_report(report)
    assert [(row["of"], row["picture"]) for row in rows] == [
        ("a@1", None), ("input", None), ("b@1", None), ("a@1", "x.png"), ("input", "x.png"),
    ]  # fmt: skip
    assert {row["protocol"] for row in rows} == {"σ 25: noise"}
    assert (rows[0]["psnr"], rows[1]["psnr"]) == (30.0, 20.0)


def test_of_a_hole_the_whole_picture_and_the_hole_are_told_apart() -> None:
    row = {"method": "a@1", "mask": "strokes", "share": 0.1, **NUMBERS, "hole": LESS}
    whole, hole = figures.of_report({"protocol": "holes", "rows": [row], "images": []})
    assert (whole["protocol"], hole["protocol"]) == ("strokes: holes", "strokes: holes; the hole alone")
    assert hole["psnr"] == 20.0


def test_what_has_no_figures_leaves_no_row() -> None:
    assert figures.of_report({"protocol": "noisy", "rows": [{"method": "a@1", "removed_rms": 3.0}], "images": []}) == []


def test_the_two_rows_of_an_epoch_are_one_line() -> None:
    rows = figures.of_epochs(
        [{"epoch": 1, "rows": [{"of": "train", "loss": 0.5, "seconds": 2.0}, {"of": "validation", "loss": 0.4, **NUMBERS, "seconds": 1.0}]}]
    )
    assert [row["epoch"] for row in rows] == [1, 1]
    asked = [shown("x") | dict.fromkeys(NUMBERS) | row | {"split": row["of"]} for row in rows]
    (epoch,) = epochs_of([*asked, shown("a@1")])
    assert (epoch["epoch"], epoch["loss"], epoch["held_out_loss"], epoch["psnr"], epoch["seconds"]) == (1, 0.5, 0.4, 30.0, 3.0)


def test_a_curve_rises_from_its_least_to_its_greatest_value() -> None:
    lines = curve([20.0, 25.0, 30.0], "dB")
    assert lines[0].startswith(" 30.00 dB │")
    assert lines[-1].startswith(" 20.00 dB │")
    columns = [[line.split("│")[1].ljust(3)[place] for line in lines] for place in range(3)]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(block) for block in column) for column in columns]
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (1, 64)
    assert all(len(line) <= 11 + 64 for line in curve([float(value) for value in range(1000)], "dB"))
    assert len(curve([30.0, 30.0], "dB")) == len(lines)


def test_a_training_shows_where_it_stands_and_its_latest_epochs() -> None:
    job = {"model": "mine@1", "state": "running", "progress": {"done": 40, "total": 100}, "eta_s": 12.0}
    assert learning_lines(job, []) == ["mine@1  running  step 40 of 100  about 12 s"]
    epochs = [{"epoch": n, "loss": 0.1, "psnr": 20.0 + n, "ssim": 0.5, "seconds": 2.0} for n in range(1, 9)]
    told = "\n".join(learning_lines(job, epochs))
    assert "28.00 dB" in told
    assert "█" in told
    assert "EPOCH" in told
    noisy = [epoch | {"psnr": None, "ssim": None} for epoch in epochs]
    assert "0.1000" in "\n".join(learning_lines(job, noisy))


def test_a_model_that_leaves_pictures_worse_than_they_came_is_said_to() -> None:
    rows = [
        shown("bad@1", psnr=19.0),
        shown("input", psnr=20.0),
        shown("good@1"),
        shown("good@1", picture="x.png"),
        shown("train", split="train"),
    ]
    title, _, *told = measured_lines(rows)
    assert title == "p"
    assert [click.unstyle(line).split()[0] for line in told] == ["good@1", "untouched", "bad@1"]
    assert [("worse than untouched" in line) for line in told] == [False, False, True]
    assert "\x1b[31m" in told[2], "red on a terminal; click leaves colours out in a pipe"
