"""A plot of points over a logarithmic axis, as SVG that follows the reader's light or dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 48, 52  # around the field
NEAR = 15  # pixels between two names
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #57606a } .title { font-size: 15px; fill: #1f2328 } .ours { fill: #1f2328; font-weight: 600 }
line { stroke: #d0d7de } circle { fill: #8c959f } circle.ours { fill: #bc4c00 }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 } .title, .ours { fill: #f0f6fc }
  line { stroke: #3d444d } circle.ours { fill: #f0883e }
}
"""


@dataclass(frozen=True)
class Point:
    """One of a plot; `ours` stands out."""

    name: str
    x: float  # above 0
    y: float
    ours: bool = False


def svg(points: Sequence[Point], title: str, across: str, up: str) -> str:
    """The whole file. Names stand beside their points, one below the other where they would touch."""
    xs, ys = [math.log10(point.x) for point in points], [point.y for point in points]
    left, right = math.floor(min(xs) * 2) / 2, math.ceil(max(xs) * 2) / 2
    low, high = math.floor(min(ys)), math.ceil(max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        share = ((x - left) / max(right - left, 1e-9), (y - low) / max(high - low, 1e-9))
        return LEFT + share[0] * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share[1] * (HEIGHT - TOP - BOTTOM)

    drawn = [f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>']
    for level in range(low, high + 1):
        _, y = at(left, level)
        drawn.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{level}</text>')
    for half in range(round(left * 2), round(right * 2) + 1):
        x, y = at(half / 2, low)
        drawn.append(f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">{10 ** (half / 2):.1g}</text>')
    drawn.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>')
    drawn.append(f'<text transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    taken: list[tuple[float, float]] = []
    for x, y, point in sorted((*at(x, y), point) for x, y, point in zip(xs, ys, points, strict=True)):
        beside = x < WIDTH * 0.72  # else to the left of it
        below = y + 4
        while any(abs(below - other) < NEAR and abs(x - place) < WIDTH / 4 for place, other in taken):
            below += 1
        taken.append((x, below))
        name = f'x="{x + (11 if beside else -11):.1f}" y="{below:.1f}" text-anchor="{"start" if beside else "end"}"'
        kind = ' class="ours"' if point.ours else ""
        drawn.append(f'<circle{kind} cx="{x:.1f}" cy="{y:.1f}" r="5"/><text{kind} {name}>{escape(point.name)}</text>')
    body = "\n".join(drawn)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return f"{head}\n<style>{STYLE}</style>\n{body}\n</svg>\n"
