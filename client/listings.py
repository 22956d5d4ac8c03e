"""Jobs and models as rows of text."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from client.text import amount, counted, duration, gain, legible, table

Item = Mapping[str, Any]

OTHER_COLUMNS = 98  # characters of a line of `job_table` beside the name
SHORTEST_NAME = 12


def job_table(jobs: Sequence[Item], now: datetime, longest_name: int | None = None) -> list[str]:
    """A line for each job under a line of headings; `now` is what ages are counted to."""
    rows = [
        (
            job["id"],
            job["state"],
            legible(_name(job), longest_name),
            job["model"] or "-",
            _progress(job),
            "-" if job["eta_s"] is None else duration(job["eta_s"]),
            duration((now - datetime.fromisoformat(job["created_at"])).total_seconds()),
        )
        for job in jobs
    ]
    return table(("ID", "STATE", "NAME", "MODEL", "PROGRESS", "ETA", "AGE"), rows, right=frozenset({"ETA", "AGE"}))


def name_width(columns: int) -> int:
    """The most characters for a name, so that a line of `job_table` need not wrap on a terminal of so many columns."""
    return max(SHORTEST_NAME, columns - OTHER_COLUMNS)


def change_line(job: Item) -> str:
    """One change of a job, for a pipe: `ID  STATE  NAME`, and how far it is."""
    progress = _progress(job)
    return f"{job['id']}  {job['state']:<9}  {legible(_name(job))}" + ("" if progress == "-" else f"  {progress}")


def job_lines(job: Item) -> list[str]:
    """Everything that matters about one job, a line each."""
    result, error = job["result"], job["error"]
    facts = {
        "id": job["id"],
        "state": job["state"],
        "kind": job["kind"],
        "name": legible(_name(job)),
        "model": job["model"],
        "label": job["label"] and legible(job["label"]),
        "progress": _progress(job) if job["state"] == "running" else None,
        "waiting": _place(job),
        "eta": job["eta_s"] is not None and f"about {duration(job['eta_s'])}",
        "created": job["created_at"],
        "finished": job["finished_at"],
        "kept": job.get("expires_at") and f"until {job['expires_at']}",
        "retry of": job.get("retry_of"),
        "took": result and duration(result["seconds"]),
        "result": result and _result(result),
        "quality": job.get("metrics") and gain(job["metrics"]),
        "error": error and legible(f"{error['title']}. {error['detail']}"),
    }
    return [f"{name:<8}  {fact}" for name, fact in facts.items() if fact]


def _place(job: Item) -> str | None:
    if job["state"] != "queued" or job["position"] is None:
        return None
    return f"{job['position']} before it" if job["position"] else "next"


def _result(result: Item) -> str:
    if "type" not in result:  # it leaves no file
        return f"{counted(result.get('images', result.get('pictures', 0)), 'picture')}, {amount(result['bytes'])}"
    size = f", {result['width']} x {result['height']}" if result.get("width") else ""
    return f"{result['type']}{size}, {result['bytes']} bytes"


def batch_table(batches: Sequence[Item], now: datetime) -> list[str]:
    """A line for each batch under a line of headings; `now` is what ages are counted to."""
    rows = [
        (
            batch["id"],
            batch["state"],
            legible(batch["label"] or "-"),
            f"{_over(batch)} of {batch['counts']['total']}",
            str(batch["counts"]["failed"]),
            duration((now - datetime.fromisoformat(batch["created_at"])).total_seconds()),
        )
        for batch in batches
    ]
    return table(("ID", "STATE", "LABEL", "DONE", "FAILED", "AGE"), rows, right=frozenset({"DONE", "FAILED", "AGE"}))


def batch_lines(batch: Item, failed: Sequence[Item], longest_line: int | None) -> list[str]:
    """Everything that matters about one batch, a line each; then each picture that failed, and why."""
    counts = ", ".join(f"{count} {name}" for name, count in batch["counts"].items() if count and name != "total")
    facts = {
        "id": batch["id"],
        "state": batch["state"],
        "label": batch["label"] and legible(batch["label"]),
        "pictures": f"{batch['counts']['total']}{f': {counts}' if counts else ''}",
        "created": batch["created_at"],
        "finished": batch["finished_at"],
    }
    lines = [f"{name:<8}  {fact}" for name, fact in facts.items() if fact]
    told = [legible(f"{item['path']}: {item['error']['title']}. {item['error']['detail']}", longest_line) for item in failed]
    return [*lines, "", *told] if told else lines


def dataset_table(datasets: Sequence[Item], now: datetime) -> list[str]:
    """A line for each data set under a line of headings; `now` is what ages are counted to."""
    rows = [
        (
            dataset["id"],
            dataset["state"],
            dataset["kind"],
            legible(dataset["label"] or "-"),
            *_figures(dataset),
            duration((now - datetime.fromisoformat(dataset["created_at"])).total_seconds()),
        )
        for dataset in datasets
    ]
    figures = ("IMAGES", "MPX", "SIZE")
    return table(("ID", "STATE", "KIND", "LABEL", *figures, "AGE"), rows, right=frozenset({*figures, "AGE"}))


def _figures(dataset: Item) -> tuple[str, str, str]:
    if dataset["state"] != "ready":
        return "-", "-", "-"
    return str(dataset["images"]), f"{dataset['pixels'] / 1e6:.1f}", amount(dataset["bytes"])


def dataset_line(dataset: Item) -> str:
    """`ID  ready  20 pictures, 24.1 Mpx in 72 MB, 1 left out`."""
    what = "pair" if dataset["kind"] == "paired" else "picture"
    size = f"{counted(dataset['images'], what)}, {dataset['pixels'] / 1e6:.1f} Mpx in {amount(dataset['bytes'])}"
    return ", ".join([f"{dataset['id']}  {dataset['state']}  {size}", *_others(dataset["report"])])


def dataset_lines(dataset: Item) -> list[str]:
    """Everything that matters about one data set, a line each."""
    found, error = dataset["report"], dataset["error"]
    facts = {
        "id": dataset["id"],
        "state": dataset["state"],
        "kind": dataset["kind"],
        "label": dataset["label"] and legible(dataset["label"]),
        "images": dataset["images"],
        "pixels": dataset["pixels"] and f"{dataset['pixels'] / 1e6:.1f} Mpx in {amount(dataset['bytes'])}",
        "found": found and _found(found),
        "sha256": dataset["sha256"],
        "job": dataset["job"],
        "created": dataset["created_at"],
        "error": error and legible(f"{error['title']}. {error['detail']}"),
    }
    return [f"{name:<8}  {fact}" for name, fact in facts.items() if fact]


def report_lines(report: Item, longest_line: int | None) -> list[str]:
    """What a data set was found to hold: its figures, then what is wrong with which picture, then what looks alike."""
    split, sizes = report["split"], report["sizes"]
    facts = {
        "found": _found(report | report["counts"]),
        "pixels": f"{report['pixels'] / 1e6:.1f} Mpx",
        "sizes": ", ".join(f"{name} {side['width']} x {side['height']}" for name, side in sizes.items()),
        "modes": ", ".join(f"{count} {name}" for name, count in report["modes"].items()),
        "split": f"{split['training']} to learn from, {split['held_out']} to measure with, at a share of {split['share']:g}",
    }
    lines = [f"{name:<8}  {fact}" for name, fact in facts.items() if fact]
    told = {
        "skipped": [skipped_line(item) for item in report["skipped"]],
        "duplicates": [legible(f"{item['path']} is a copy of {item['of']}") for item in report["duplicates"]],
        "near_duplicates": [legible(f"alike: {', '.join(group)}") for group in report["near_duplicates"]],
    }
    for name, of in told.items():
        more = report["counts"][name] - len(of)
        lines += ["", *(legible(line, longest_line) for line in of)] if of else []
        lines += [f"and {more} more"] if more else []
    return lines


def skipped_line(item: Item) -> str:
    """`album/torn.png: cut off, and so on`, of what is left out of a data set."""
    return legible(f"{item['path']}: {item['detail']}")


def _found(found: Item) -> str:
    return ", ".join([f"{found['usable']} of {found['images']} usable", *_others(found)])


def _others(found: Item) -> list[str]:
    copies, groups = found["duplicates"], found["near_duplicates"]
    told = {
        f"{found['skipped']} left out": found["skipped"],
        f"{copies} exact {'copy' if copies == 1 else 'copies'}": copies,
        f"{counted(groups, 'group')} that look{'s' if groups == 1 else ''} alike": groups,
        f"{counted(found['ignored'], 'other file')} ignored": found["ignored"],
    }
    return [words for words, count in told.items() if count]


def _over(batch: Item) -> int:
    counts = batch["counts"]
    return int(counts["total"] - counts["waiting"] - counts["running"])


def model_table(models: Sequence[Item]) -> list[str]:
    """A line for each model, with its PSNR in dB at each level of noise (σ, of 255) that its first evaluation holds."""
    psnr = [_psnr(model) for model in models]
    sigmas = sorted({sigma for row in psnr for sigma in row})
    levels = [f"PSNR AT {sigma:g}" for sigma in sigmas]
    rows = [
        (
            f"{model['name']}@{model['version']}",
            model["task"],
            _count(model["parameters"]) if model["parameters"] else "-",
            *(f"{row[sigma]:.2f} dB" if sigma in row else "-" for sigma in sigmas),
            legible(str((_evaluation(model) or {}).get("set", "-"))),
            ", ".join(_uses(model)),
        )
        for model, row in zip(models, psnr, strict=True)
    ]
    headings = ("MODEL", "TASK", "PARAMETERS", *levels, "MEASURED ON", "USED AS")
    return table(headings, rows, right=frozenset({"PARAMETERS", *levels}))


def card_lines(card: str, width: int | None) -> list[str]:
    """A model card for a terminal of so many columns; as it stands, but for what would steer a terminal, where there is none."""
    lines = [legible(line) for line in card.splitlines()]
    if width is None:
        return lines
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(Markdown("\n".join(lines)))
    shown = [line.rstrip() for line in captured.get().splitlines()]
    return [line for line, before in zip(shown, ["", *shown], strict=False) if line or before]


def _name(job: Item) -> str:
    return str(job["path"] or (job["input"] or {}).get("name") or job["label"] or job["kind"])


def _progress(job: Item) -> str:
    """How far it is, how long it took, or why it failed."""
    if job["state"] == "succeeded" and job["result"]:
        return duration(job["result"]["seconds"])
    if job["state"] == "failed" and job["error"]:
        return str(job["error"]["code"])
    progress = job["progress"]
    if job["state"] == "running" and progress and progress["total"]:
        return f"{progress['done']}/{progress['total']} {progress['unit']}"
    return "-"


def _evaluation(model: Item) -> Item | None:
    """Its first evaluation; None also where an added model's manifest holds something of another form."""
    match model.get("metrics"):
        case {"evaluations": [{"rows": list()} as first, *_]}:
            return cast("Item", first)
    return None


def _psnr(model: Item) -> dict[float, float]:
    """PSNR in dB by σ: its own, not that of what was measured beside it."""
    rows = (_evaluation(model) or {}).get("rows", [])
    own = {None, f"{model['name']}@{model['version']}"}
    found = {}
    for row in rows:
        match row:
            case {"sigma": int() | float() as sigma, "psnr": int() | float() as psnr} if row.get("method") in own:
                found[float(sigma)] = float(psnr)
    return found


def _uses(model: Item) -> list[str]:
    """What it is used as; or that it is not ready."""
    if model.get("state", "ready") != "ready":
        return [str(model["state"])]
    return (["default"] if model.get("default") else []) + [str(alias) for alias in model.get("aliases") or []]


def _count(number: int) -> str:
    """`1.06 M`, `24.3 k`, `512`."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
