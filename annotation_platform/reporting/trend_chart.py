"""The trend of a figure as an SVG, styled by the page around it."""

import math
from html import escape

from annotation_platform.reporting.round_facts import Trend

STYLE = """\
.t-text{font:11px system-ui,sans-serif;fill:#5d6470}
.t-last{font-weight:600;fill:#1c1e21;stroke:var(--ground);stroke-width:4;paint-order:stroke}
.t-grid{stroke:#dfe2e6}.t-line{fill:none;stroke:#3b6fd4;stroke-width:2;stroke-linejoin:round}
.t-dot{fill:#3b6fd4}
@media(prefers-color-scheme:dark){.t-text{fill:#9aa3af}.t-last{fill:#e8eaed}
.t-grid{stroke:#333842}.t-line{stroke:#6c9cf5}.t-dot{fill:#6c9cf5}}
"""

_WIDTH, _HEIGHT = 280, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 266, 22, 104
_MOST = 40
"""Largest number of rounds in a chart; it shows the last ones."""
_MOST_DOTS = 24


def draw_trend(trend: Trend) -> str:
    """Return the trend over the last forty rounds as an SVG, with a gap where the figure is NaN."""
    values = list(trend.values.items())[-_MOST:]
    known = [value for _, value in values if not math.isnan(value)]
    top = _ceiling(max(known), trend) if known else 1.0
    step = (_RIGHT - _LEFT) / max(len(values) - 1, 1)
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _y(share * top, top)
        parts.append(f'<path class="t-grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        text = _short(share * top, trend)
        parts.append(
            f'<text class="t-text" x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    points: list[list[str]] = [[]]
    for at, (key, value) in enumerate(values):
        if math.isnan(value):
            points.append([])
            continue
        x, y = _LEFT + at * step, _y(value, top)
        points[-1].append(f"{x:.1f} {y:.1f}")
        is_last = at == len(values) - 1
        if len(values) <= _MOST_DOTS or is_last:
            tooltip = f"<title>{escape(key)}: {_long(value, trend)}</title>"
            parts.append(
                f'<circle class="t-dot" cx="{x:.1f}" cy="{y:.1f}" r="3">{tooltip}</circle>'
            )
        if is_last:
            text = _long(value, trend)
            parts.append(
                f'<text class="t-text t-last" x="{x:.1f}" y="{y - 8:.1f}" text-anchor="end">'
                f"{text}</text>"
            )
    parts += [f'<path class="t-line" d="M{"L".join(run)}"/>' for run in points if len(run) > 1]
    ends = {0: "start", len(values) - 1: "end"} if len(values) > 1 else {0: "start"}
    for at, anchor in ends.items():
        parts.append(
            f'<text class="t-text" x="{_LEFT + at * step:.1f}" y="{_BOTTOM + 18}" '
            f'text-anchor="{anchor}">{escape(values[at][0])}</text>'
        )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(trend.title)} by round">{"".join(parts)}</svg>'
    )


def _ceiling(most: float, trend: Trend) -> float:
    """Return the upper end of the axis: 1, 2 or 5 times a power of ten; for a share at most 1."""
    power = 10.0 ** math.floor(math.log10(most)) if most > 0 else 0.1
    top = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= most)
    return min(top, 1.0) if trend.is_share else top


def _y(value: float, top: float) -> float:
    return _BOTTOM - value / top * (_BOTTOM - _TOP)


def _short(value: float, trend: Trend) -> str:
    return f"{value:.2g}" if trend.is_share else f"{value:g}"


def _long(value: float, trend: Trend) -> str:
    return f"{value:.3f}" if trend.is_share else f"{value:.1f}"
