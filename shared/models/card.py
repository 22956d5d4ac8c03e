"""The model card: what a manifest says, for people, as Markdown that can also be read as it stands."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from shared.models.manifest import Manifest

TASKS = {"denoise": "Removes noise from pictures.", "inpaint": "Fills what a mask marks in a picture."}
FIGURES = {"psnr": ("PSNR", "dB"), "ssim": ("SSIM", ""), "mse": ("MSE", ""), "rmse": ("RMSE", ""), "mae": ("MAE", "")}
PARTS = {"input": ["psnr"], "hole": ["psnr", "ssim"]}  # of what else a row has figures, and which of them are shown
PLACES = {"psnr": 2, "ssim": 4}  # digits after the point; 3 of all others


def card(found: Manifest) -> str:
    """The card of a model version. Whatever its manifest holds, a line of it stays a line, and nothing in it is markup."""
    parts = [
        f"# {found.reference}",
        TASKS[found.task],
        "\n".join(f"- {name}: {what}" for name, what in _facts(found)),
        "## Quality",
        *_quality(found),
        "## Data",
        _data(found),
        "## Recipe",
        *_recipe(found.recipe),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(found: Manifest) -> list[tuple[str, str]]:
    parameters = f"{found.parameters:,}".replace(",", " ") if found.parameters else "none: it is a classical method"
    config = [("Configuration", _text(_json(found.config)))] if found.config else []
    base = [("Trained from", _text(found.base))] if found.base else []
    weights = [("Weights", f"SHA-256 {found.weights_sha256}")] if found.weights_sha256 else []
    return [
        ("Task", found.task),
        ("Architecture", _text(found.architecture)),
        *config,
        ("Parameters", parameters),
        *base,
        ("Licence", _text(found.licence)),
        ("Made", _text(found.created_at)),
        *weights,
    ]


def _quality(found: Manifest) -> list[str]:
    """A table for each protocol and set: a line for each row, the untouched input's or the hole's figures behind the output's."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found.rows:
        groups.setdefault((str(row["protocol"] or "no protocol"), str(row["set"] or "unnamed pictures")), []).append(row)
    if not groups:
        return ["No evaluation is recorded."]
    return [part for (protocol, pictures), rows in groups.items() for part in (f"On {_text(pictures)}: {_text(protocol)}.", _figures(rows))]


def _figures(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = [name for name in FIGURES if any(name in row for row in rows)]
    told = [name for name in _names(rows) if all(_is_plain(row.get(name)) for row in rows)]  # what the rows differ in: σ, holes, …
    parts = [(of, name) for of, names in PARTS.items() for name in names if any(name in _part(row, of) for row in rows)]
    headings = [
        *(_text({"sigma": "σ"}.get(name, name)) for name in told),
        *(_heading(name) for name in shown),
        *(f"{_heading(name)} of the {of}" for of, name in parts),
    ]
    cells = [
        [
            *(_text(f"{row.get(name, '–'):g}" if isinstance(row.get(name), float) else row.get(name, "–")) for name in told),
            *(_number(name, row.get(name)) for name in shown),
            *(_number(name, _part(row, of).get(name)) for of, name in parts),
        ]
        for row in rows
    ]
    return _table(headings, cells)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    left_out = {"model", "protocol", "set", *PARTS, *FIGURES}
    return list(dict.fromkeys(name for row in rows for name in row if name not in left_out))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _part(row: Mapping[str, Any], of: str) -> Mapping[str, Any]:
    given = row.get(of)
    return given if isinstance(given, Mapping) else {}


def _heading(name: str) -> str:
    title, unit = FIGURES[name]
    return f"{title} ({unit})" if unit else title


def _number(name: str, value: Any) -> str:
    return f"{value:.{PLACES.get(name, 3)}f}" if isinstance(value, int | float) else "–"


def _data(found: Manifest) -> str:
    if not found.data:
        return "It learnt from no pictures."
    return _table(("Set", "Pictures", "Terms"), [(_text(one.name), str(one.images), _text(one.terms)) for one in found.data])


def _recipe(recipe: Mapping[str, Any]) -> list[str]:
    """A table of its fields, with a column for each training that led here: a recipe holds that of its base."""
    trainings: list[Mapping[str, Any]] = []
    stage: Any = recipe
    while isinstance(stage, Mapping) and stage:
        trainings.insert(0, {name: value for name, value in stage.items() if name != "base_recipe"})
        stage = stage.get("base_recipe")
    if not trainings:
        return ["Nothing is told of it."]
    names = dict.fromkeys(name for training in reversed(trainings) for name in training)
    rows = [[_text(name), *(_text(_json(training[name])) if name in training else "–" for training in trainings)] for name in names]
    if len(trainings) == 1:
        return [_table(("Field", "Value"), rows)]
    numbers = [str(number) for number in range(1, len(trainings) + 1)]
    return [f"It was trained {len(trainings)} times, each time from the weights of the time before.", _table(("Training", *numbers), rows)]


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * max(width, 3) for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines)


def _text(value: Any) -> str:
    """Anything as one line of Markdown that shows it as it is."""
    clean = "".join(sign if sign.isprintable() else "?" for sign in " ".join(str(value).split()))  # nothing steers a terminal
    return re.sub(r"([\\`*\[\]|])", r"\\\1", clean).replace("&", "&amp;").replace("<", "&lt;")
