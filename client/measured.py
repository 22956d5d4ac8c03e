"""Figures of models beside each other, as a table for each protocol."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import click

from client.text import legible, table

Row = dict[str, Any]
UNTOUCHED = "input"
WORSE = "worse than untouched"


def measured_lines(rows: Sequence[Row]) -> list[str]:
    """The means, protocol by protocol; a model that leaves pictures worse than they came is said to, in red on a terminal."""
    lines: list[str] = []
    means = [row for row in rows if row["picture"] is None and row["split"] is None]
    for protocol, found in groupby(sorted(means, key=lambda row: row["protocol"]), key=lambda row: row["protocol"]):
        group = sorted(found, key=lambda row: row["psnr"] is None or -row["psnr"])
        untouched = next((row["psnr"] for row in group if row["of"] == UNTOUCHED), None)
        told = table(("", "PSNR", "SSIM", "MSE", "RMSE", "MAE", ""), [_cells(row, untouched) for row in group], right=RIGHT)
        lines += ([""] if lines else []) + [legible(protocol)] + [_coloured(line) for line in told]
    return lines


RIGHT = frozenset({"PSNR", "SSIM", "MSE", "RMSE", "MAE"})


def _cells(row: Row, untouched: float | None) -> tuple[str, ...]:
    worse = row["of"] != UNTOUCHED and None not in (row["psnr"], untouched) and row["psnr"] < untouched
    return (
        "untouched" if row["of"] == UNTOUCHED else legible(row["of"]), _told(row["psnr"], "{:.2f} dB"), _told(row["ssim"], "{:.4f}"),
        _told(row["mse"], "{:.1f}"), _told(row["rmse"], "{:.2f}"), _told(row["mae"], "{:.2f}"), WORSE if worse else "",
    )  # fmt: skip


def _coloured(line: str) -> str:
    return click.style(line, fg="red") if line.endswith(WORSE) else line  # click leaves colours out in a pipe


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
