"""What is found while a data set is looked through, told at the end as its report."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.datasets.packed import Stored
from shared.errors import CODES, LacunaError
from shared.trainings.recipe import Recipe, is_held_out

LISTED = 1_000  # of each kind of finding that a report names; it counts all


@dataclass
class Findings:
    """Lists with their full lengths, which may be more than they hold."""

    images: int = 0  # pictures, in a paired set pairs and pictures without a partner
    ignored: int = 0  # files that are none
    bad: int = 0  # of the images
    lists: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, what: Any) -> None:
        """To the list of that kind."""
        self.counts[kind] += 1
        if len(self.lists[kind]) < LISTED:
            self.lists[kind].append(what)

    def skip(self, path: str, why: LacunaError) -> None:
        """An image that is left out for a fault of its own."""
        self.bad += 1
        self.add("skipped", {"path": path, "code": why.code, "detail": why.detail})

    @property
    def worst(self) -> str:
        """A sentence about one of them, for who reads no report."""
        first = self.lists["skipped"][0] if self.lists["skipped"] else None
        return f" “{first['path'][:100]}”: {CODES[first['code']].title}." if first else ""


KINDS = ("skipped", "duplicates", "near_duplicates", "noisy", "misaligned")


def report(findings: Findings, stored: Sequence[Stored]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the numbers, the whole report) of a set that holds `stored`."""
    share = Recipe.model_fields["validation_share"].default
    held_out = sum(is_held_out(image.split_key, share) for image in stored)
    counts = {
        "images": findings.images, "usable": len(stored), "ignored": findings.ignored,
        **{kind: findings.counts[kind] for kind in KINDS},
        "largest_patch": max((min(image.height, image.width) for image in stored), default=0),
    }  # fmt: skip
    modes = Counter(f"{'grey' if image.channels == 1 else 'rgb'}-{image.bits}" for image in stored)
    by_size = sorted(stored, key=lambda image: image.height * image.width)
    sizes = {
        name: {"width": image.width, "height": image.height}
        for name, image in (("smallest", by_size[0]), ("median", by_size[len(by_size) // 2]), ("largest", by_size[-1]))
    } if by_size else {}  # fmt: skip
    told = {
        "images": findings.images, "usable": len(stored), "ignored": findings.ignored,
        "pixels": sum(image.height * image.width for image in stored), "counts": {kind: findings.counts[kind] for kind in KINDS},
        **{kind: list(findings.lists[kind]) for kind in KINDS},
        "split": {"share": share, "training": len(stored) - held_out, "held_out": held_out}, "modes": dict(sorted(modes.items())),
        "sizes": sizes,
    }  # fmt: skip
    return counts, told
