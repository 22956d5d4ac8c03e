"""Pairs that alternate, ours and a peer's: medians and ranges of their ratios, as a table and as JSON."""

import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timed:
    """Seconds of each round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    def json(self) -> dict[str, float]:
        """Median and range."""
        return {"median": self.median, "least": min(self.seconds), "most": max(self.seconds)}


def alternate(sides: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, Timed]:
    """Time each side once a round, after a round that does not count."""
    taken: dict[Any, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, call in sides.items():
            began = time.perf_counter()
            call()
            if number:
                taken[name].append(time.perf_counter() - began)
    return {name: Timed(seconds) for name, seconds in taken.items()}


@dataclass(frozen=True)
class Row:
    """A comparison: what it is, what is promised, and what both sides took."""

    what: str
    promised: str
    ours: Timed
    peer: Timed
    files: int = 0  # if it is told what each of so many takes beyond the peer's

    @property
    def ratios(self) -> list[float]:
        """The peer's time by ours, of each pair."""
        return [theirs / mine for theirs, mine in self._pairs()]

    def beyond_ms(self) -> list[float]:
        """What each file took beyond the peer's, of each pair."""
        return [1000 * (mine - theirs) / self.files for theirs, mine in self._pairs()] if self.files else []

    def json(self) -> dict[str, Any]:
        """For the file."""
        return {
            "what": self.what, "promised": self.promised, "ratio": statistics.median(self.ratios), "least": min(self.ratios),
            "most": max(self.ratios), "ours_s": self.ours.median, "peer_s": self.peer.median, "pairs": len(self.ratios),
            "beyond_ms": self.beyond_ms(),
        }  # fmt: skip

    def line(self) -> str:
        """As it is printed."""
        span = f"{min(self.ratios):.2f} – {max(self.ratios):.2f}"
        sides = f"{self.ours.median:>7.3f} s {self.peer.median:>7.3f} s"
        each = f" ({statistics.median(found):.2f} ms: {min(found):.2f} – {max(found):.2f})" if (found := self.beyond_ms()) else ""
        return f"{self.what:<62} {sides} {statistics.median(self.ratios):>6.2f}  {span:<13} {self.promised}{each}"

    def _pairs(self) -> Iterable[tuple[float, float]]:
        return zip(self.peer.seconds, self.ours.seconds, strict=True)


def compared(what: str, promised: str, rounds: int, ours: Callable[[], object], peer: Callable[[], object], files: int = 0) -> Row:
    """The pair, so often."""
    timed = alternate({"peer": peer, "ours": ours}, rounds)
    return Row(what, promised, timed["ours"], timed["peer"], files)


def shown(rows: Iterable[Row], json_path: Path | None) -> None:
    """Print each as it comes, under a heading; then write the file, if one is wanted."""
    found = []
    print(f"{'':<62} {'ours':>9} {'peer':>9} {'ratio':>6}  {'range':<13} promised")
    for row in rows:
        found.append(row.json())
        print(row.line(), flush=True)
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
