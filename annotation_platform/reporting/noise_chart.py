"""The noise curve as an SVG file with its own light and dark style."""

import math

import pandas as pd

_WIDTH, _HEIGHT = 400, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 384, 16, 170
_STYLE = """\
text{font:11px system-ui,sans-serif;fill:#5d6470}.grid{stroke:#dfe2e6}
.map{stroke:#3b6fd4;fill:#3b6fd4}.map50{stroke:#e0922f;fill:#e0922f}path,line{fill:none!important}
@media(prefers-color-scheme:dark){text{fill:#9aa3af}.grid{stroke:#333842}
.map{stroke:#6c9cf5;fill:#6c9cf5}.map50{stroke:#f0b35c;fill:#f0b35c}}
"""
_TITLES = {"map": "mAP", "map50": "mAP at IoU 0.5"}


def draw_noise_curve(curve: pd.DataFrame) -> bytes:
    """Return the result of ``models.noise.noise_curve`` as an SVG: mAP by share of wrong labels.

    Bars are the 95 % intervals; the height of the chart is mAP from 0 to 1.
    """
    most = max(float(curve["share"].max()), 0.01)
    parts = [f"<style>{_STYLE}</style>"]
    for tick in range(6):
        y = _y(tick / 5)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick / 5:.1f}</text>'
        )
    for share in curve["share"]:
        x = _x(share, most)
        parts.append(
            f'<text x="{x:.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{share:.0%}</text>'
        )
    for number, name in enumerate(_TITLES):
        parts.append(_line(curve, name, most))
        x = _LEFT + 110 * number
        parts.append(f'<circle class="{name}" cx="{x}" cy="{_HEIGHT - 14}" r="4"/>')
        parts.append(f'<text x="{x + 9}" y="{_HEIGHT - 10}">{_TITLES[name]}</text>')
    parts.append(
        f'<text x="{_RIGHT}" y="{_HEIGHT - 10}" text-anchor="end">share of wrong labels</text>'
    )
    content = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="mAP by share of wrong labels">{content}</svg>\n'
    ).encode()


def _line(curve: pd.DataFrame, name: str, most: float) -> str:
    columns = ["share", name, f"{name}_low", f"{name}_high"]
    rows = [row for row in curve[columns].to_numpy(dtype=float).tolist() if math.isfinite(row[1])]
    points = " ".join(f"{_x(share, most):.1f} {_y(value):.1f}" for share, value, *_ in rows)
    parts = [f'<path class="{name}" stroke-width="2" d="M{points}"/>'] if rows else []
    for share, value, low, high in rows:
        x = _x(share, most)
        tooltip = f"{share:.0%} wrong: {_TITLES[name]} {value:.3f} ({low:.3f} to {high:.3f})"
        bar = f'<path class="{name}" d="M{x:.1f} {_y(low):.1f}V{_y(high):.1f}"/>'
        dot = f'<circle class="{name}" cx="{x:.1f}" cy="{_y(value):.1f}" r="3.5"/>'
        parts.append(f"<g><title>{tooltip}</title>{bar}{dot}</g>")
    return "".join(parts)


def _x(share: float, most: float) -> float:
    return _LEFT + 12 + share / most * (_RIGHT - _LEFT - 24)


def _y(value: float) -> float:
    return _BOTTOM - value * (_BOTTOM - _TOP)
