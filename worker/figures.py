"""What a child measured, as rows of the database: of each method and of the untouched input, for each picture and as means."""

from collections.abc import Iterator, Mapping
from typing import Any

from shared.jobs.store import FIGURES

Row = dict[str, Any]


def of_epochs(epochs: list[Mapping[str, Any]]) -> list[Row]:
    """Of a training's epochs, what was learnt from and what was held out."""
    protocols = {"train": "mean loss over the epoch's batches", "validation": "averaged weights, crops of held-out pictures, 8 bit"}
    return [{"epoch": epoch["epoch"], "protocol": protocols[row["of"]], **row} for epoch in epochs for row in epoch["rows"]]


def of_report(report: Mapping[str, Any]) -> list[Row]:
    """Of a report (trainer/evaluation.py) under one protocol: the means first, then the pictures."""
    return [row for part in ("rows", "images") for row in _rows(report["protocol"], report[part])]


def _rows(protocol: str, measured: list[Mapping[str, Any]]) -> Iterator[Row]:
    untouched: set[tuple[str, str | None]] = set()  # told once, though each method's row has it
    for row in measured:
        told, picture = f"{_condition(row)}{protocol}", row.get("image")
        if "psnr" in row:
            yield _row(row["method"], picture, told, row)
        if "hole" in row:
            yield _row(row["method"], picture, f"{told}; the hole alone", row["hole"])
        if "input" in row and (told, picture) not in untouched:
            untouched.add((told, picture))
            yield _row("input", picture, told, row["input"])


def _condition(row: Mapping[str, Any]) -> str:
    """`σ 25: `, `strokes: `: what was done to the pictures."""
    if "sigma" in row:
        return f"σ {row['sigma']:g}: "
    return f"{row.get('mask') or row['degradation']}: " if "mask" in row or "degradation" in row else ""


def _row(of: str, picture: str | None, protocol: str, figures: Mapping[str, Any]) -> Row:
    return {"of": of, "picture": picture, "protocol": protocol, **{name: figures.get(name) for name in FIGURES}}
