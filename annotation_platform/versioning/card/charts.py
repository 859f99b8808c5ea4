"""Charts as SVG, for a page with its own style sheet and as files with an embedded one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from annotation_platform.pages.text import compact, shown
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.card.facts import ClassFacts, FolderFacts, Histogram

WIDTH = 400
"""Width of every chart in pixels: on a phone, its letters are as large as the text around it."""
MOST_BARS = 200
"""Number of classes in the chart, the most frequent first; the table has all classes."""

_ROWS, _ROW = 25, 20
_NAME, _BAR, _END = 16, 158, 352
_TOP, _BOTTOM, _LEFT = 22, 160, 34
_TICKS = 8

STYLE = """\
.c-train{fill:#3b6fd4}.c-val{fill:#e0922f}.c-test{fill:#2a9d78}
.c-text,.c-soft{font:12px system-ui,sans-serif;fill:#1c1e21}.c-soft{font-size:11px;fill:#5d6470}
.c-line{stroke:#dfe2e6}.c-mark{stroke:#5d6470;stroke-dasharray:3 3}
@media(prefers-color-scheme:dark){
.c-train{fill:#6c9cf5}.c-val{fill:#f0b35c}.c-test{fill:#4cc79f}
.c-text{fill:#e8eaed}.c-soft{fill:#9aa3af}.c-line{stroke:#333842}.c-mark{stroke:#9aa3af}}
"""


@dataclass(frozen=True)
class Chart:
    """A chart: its file name, title and note, and the SVG elements of its columns."""

    name: str
    title: str
    note: str
    columns: tuple[tuple[str, int], ...]  # elements, and their height in pixels

    @property
    def pages(self) -> list[str]:
        """Each column as a separate SVG, styled by the page that contains it."""
        return [_svg(self.title, content, WIDTH, height) for content, height in self.columns]

    @property
    def file(self) -> bytes:
        """All columns side by side as an SVG file."""
        step = WIDTH + 24
        parts = [f"<style>{STYLE}</style>", _legend()]
        parts += [
            f'<g transform="translate({at * step} 22)">{content}</g>'
            for at, (content, _) in enumerate(self.columns)
        ]
        width = step * len(self.columns) - 24
        height = 22 + max((height for _, height in self.columns), default=0)
        return _svg(self.title, "".join(parts), width, height, fixed=True).encode() + b"\n"


def draw_charts(facts: FolderFacts) -> list[Chart]:
    """Return the charts of a card by split: labels by class, then the histograms.

    A chart without values is empty.
    """
    sizes, image_sizes = facts.box_sizes, facts.image_sizes
    return [
        Chart("classes", "Labels by class", _classes_note(facts), _bars(facts.classes)),
        _histogram(
            "sizes",
            "Size of boxes",
            "The root of the area in pixels, logarithmic; bounds are COCO's.",
            sizes,
            _powers(sizes),
            marks=[(32, "small"), (96, "medium"), (math.inf, "large")],
        ),
        _histogram(
            "aspects",
            "Shape of boxes",
            "Width by height, logarithmic.",
            facts.box_aspects,
            [_ratio(start * 2**0.25) for start in facts.box_aspects.starts],
            centred=True,
        ),
        _histogram(
            "per-image",
            "Labels in an image",
            "Images by how many labels they have.",
            facts.labels_per_image,
            [_range(start) for start in facts.labels_per_image.starts],
            centred=True,
        ),
        _histogram(
            "images",
            "Size of images",
            "The root of width × height in pixels, logarithmic.",
            image_sizes,
            _powers(image_sizes),
        ),
    ]


def _classes_note(facts: FolderFacts) -> str:
    more = len(facts.classes) - MOST_BARS
    return f"The commonest {MOST_BARS}; {more} more are in the table." if more > 0 else ""


def _bars(classes: Sequence[ClassFacts]) -> tuple[tuple[str, int], ...]:
    ordered = sorted(classes, key=lambda one: (-sum(one.labels.values()), one.id))[:MOST_BARS]
    most = max((sum(one.labels.values()) for one in ordered), default=0)
    pages = max(1, math.ceil(len(ordered) / _ROWS))
    # All columns have the same number of rows.
    rows = math.ceil(len(ordered) / pages)
    columns = []
    for start in range(0, len(ordered), rows):
        part = ordered[start : start + rows]
        lines = [_bar(one, at * _ROW, most) for at, one in enumerate(part)]
        columns.append(("".join(lines), rows * _ROW + 4))
    return tuple(columns)


def _bar(one: ClassFacts, y: int, most: int) -> str:
    name = escape(shown(one.name, 18))
    parts = [
        f"<title>{escape(shown(one.name))}: {_by_split(one.labels)}</title>",
        f'<rect x="0" y="{y + 5}" width="10" height="10" rx="2" fill="{one.color}"/>',
        f'<text class="c-text" x="{_NAME}" y="{y + 14}">{name}</text>',
    ]
    x = float(_BAR)
    for split, labels in one.labels.items():
        width = (_END - _BAR) * labels / most if most else 0.0
        if labels:
            parts.append(_rect(split, x, y + 4, max(width, 0.5), 12))
        x += width
    total = sum(one.labels.values())
    parts.append(f'<text class="c-soft" x="{max(x, _BAR) + 5:.1f}" y="{y + 14}">{total:,}</text>')
    return f"<g>{''.join(parts)}</g>"


def _histogram(
    name: str,
    title: str,
    note: str,
    histogram: Histogram,
    labels: Sequence[str],
    *,
    centred: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Return a histogram; bins with an empty label get no tick, and at most ``_TICKS`` get one."""
    bins = len(labels)
    if not bins:
        text = f'<text class="c-soft" x="0" y="{_TOP}">There are none.</text>'
        return Chart(name, title, note, ((text, 2 * _TOP),))
    totals = [sum(column) for column in zip(*histogram.counts.values(), strict=True)]
    most, step = max(totals), (WIDTH - 4 - _LEFT) / max(bins, 6)
    parts = []
    for value in range(_grid(most), most + 1, _grid(most)):
        y = _BOTTOM - value / most * (_BOTTOM - _TOP)
        parts.append(f'<path class="c-line" d="M{_LEFT} {y:.1f}H{WIDTH - 4}"/>')
        parts.append(_tick(_LEFT - 5, y + 4, compact(value), "end"))
    for at in range(bins):
        y = float(_BOTTOM)
        counts = {split: histogram.counts[split][at] for split in SPLITS}
        column = [f"<title>{escape(labels[at] or '')} {_by_split(counts)}</title>"]
        for split, count in counts.items():
            height = (_BOTTOM - _TOP) * count / most
            y -= height
            if count:
                column.append(_rect(split, _LEFT + at * step + 1, y, step - 2, max(height, 0.5)))
        parts.append(f"<g>{''.join(column)}</g>")
    parts.append(f'<path class="c-line" d="M{_LEFT} {_BOTTOM}H{WIDTH - 4}"/>')
    labelled = [at for at in range(bins) if labels[at]]
    for at in labelled[:: max(1, math.ceil(len(labelled) / _TICKS))]:
        x = _LEFT + (at + (0.5 if centred else 0)) * step
        parts.append(_tick(x, _BOTTOM + 16, labels[at], "middle"))
    parts += _marks(marks, histogram.starts[0], step, bins)
    return Chart(name, title, note, (("".join(parts), _BOTTOM + 24),))


def _grid(most: int) -> int:
    """Return a distance of grid lines, 1, 2 or 5 times a power of ten, so that at most five fit."""
    power = 10 ** max(0, len(str(most)) - 2)
    steps = [power * factor for factor in (1, 2, 5, 10, 20, 50)]
    return int(next(step for step in steps if most / step < 6))


def _marks(marks: Sequence[tuple[float, str]], first: float, step: float, bins: int) -> list[str]:
    """Return the boundaries of size classes on a logarithmic axis, with the names between them."""
    parts, left = [], 0.0
    for value, name in marks:
        right = bins if math.isinf(value) else min(max(2 * math.log2(value / first), 0), bins)
        if 0 < right < bins:
            x = _LEFT + right * step
            parts.append(f'<path class="c-mark" d="M{x:.1f} 6V{_BOTTOM}"/>')
        if (right - left) * step > 6 * len(name):
            parts.append(_tick(_LEFT + (left + right) / 2 * step, 14, name, "middle"))
        left = max(left, right)
    return parts


def _legend() -> str:
    parts = []
    for at, split in enumerate(SPLITS):
        parts.append(_rect(split, at * 60, 2, 10, 10))
        parts.append(f'<text class="c-soft" x="{at * 60 + 15}" y="11">{split}</text>')
    return "".join(parts)


def _rect(split: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="c-{split}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"/>'
    )


def _tick(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text class="c-soft" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(title: str, content: str, width: int, height: int, *, fixed: bool = False) -> str:
    size = f' width="{width}" height="{height}"' if fixed else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"{size} role="img" '
        f'aria-label="{escape(title)}">{content}</svg>'
    )


def _by_split(counts: dict[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


def _powers(histogram: Histogram) -> list[str]:
    """Return labels for powers of two only; without any power of two, for all bins."""
    labels = [f"{start:g}" if math.log2(start) % 1 == 0 else "" for start in histogram.starts]
    return labels if any(labels) else [f"{start:.0f}" for start in histogram.starts]


def _ratio(middle: float) -> str:
    power = round(2 * math.log2(middle))
    whole = 2 ** (abs(power) // 2)
    return "" if power % 2 else f"{whole}:1" if power >= 0 else f"1:{whole}"


def _range(start: float) -> str:
    first, last = int(start), max(2 * (int(start) - 1), int(start))
    return f"{first}" if first == last else f"{first}–{last}"
