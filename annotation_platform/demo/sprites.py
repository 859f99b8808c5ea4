"""The four kinds of object of the demo's harbour, drawn from above with a soft edge.

Every object is drawn in its own frame, ``u`` forwards and ``v`` to starboard, in pixels of the
finished image, at four times its size; scaled down, its alpha mask is the ground truth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from annotation_platform.schema.geometry import FloatArray

Colour = tuple[int, int, int]
Point = tuple[float, float]

_OVERSAMPLING = 4
_DARK = (38, 42, 48)
_GLASS = (46, 66, 84)
_HULLS = [
    (236, 236, 230),
    (240, 234, 216),
    (30, 56, 98),
    (158, 42, 40),
    (26, 104, 106),
    (214, 168, 54),
]
_DECKS = [(190, 146, 96), (206, 176, 132), (172, 178, 178), (150, 106, 66)]
_CONTAINERS = [
    (168, 66, 44),
    (34, 84, 142),
    (48, 116, 80),
    (214, 120, 38),
    (124, 44, 56),
    (118, 128, 132),
]
_CABS = [(196, 40, 36), (32, 84, 160), (232, 232, 226), (230, 174, 42), (38, 120, 76)]
_TRAILERS = [(232, 233, 230), (206, 211, 214), (226, 220, 202), (186, 196, 206)]
_BUOYS = [(222, 44, 32), (34, 150, 74), (246, 196, 24), (242, 104, 22)]


@dataclass(frozen=True)
class Sprite:
    """One object, ready to be drawn on an image."""

    pixels: FloatArray  # (h, w, 3), 0 to 255
    alpha: FloatArray  # (h, w), 0 to 1
    left: int  # column of the image at which the sprite begins; may be negative
    top: int
    height: float  # pixels above the ground: the length of its shadow


class Pen:
    """Draws in the frame of one object: origin ``centre``, turned by ``angle`` radians."""

    def __init__(self, centre: Point, angle: float, reach: float) -> None:
        self._left = int(np.floor(centre[0] - reach)) - 1
        self._top = int(np.floor(centre[1] - reach)) - 1
        self._origin = np.array([centre[0] - self._left, centre[1] - self._top])
        forwards = np.array([np.cos(angle), np.sin(angle)])
        self._axes = np.array([forwards, [-forwards[1], forwards[0]]])
        side = int(np.ceil(2 * reach)) + 3
        self._image = Image.new("RGBA", (side * _OVERSAMPLING,) * 2, (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[Point] | FloatArray, colour: Colour) -> None:
        """Fill the polygon through these ``(u, v)`` points."""
        turned = (np.asarray(points, dtype=np.float64) @ self._axes + self._origin) * _OVERSAMPLING
        self._draw.polygon([(float(x), float(y)) for x, y in turned], fill=(*colour, 255))

    def block(
        self, u1: float, v1: float, u2: float, v2: float, colour: Colour, cut: float = 0.0
    ) -> None:
        """Fill a rectangle with corners cut off by ``cut`` pixels."""
        self.polygon(
            [
                (u1 + cut, v1), (u2 - cut, v1), (u2, v1 + cut), (u2, v2 - cut),
                (u2 - cut, v2), (u1 + cut, v2), (u1, v2 - cut), (u1, v1 + cut),
            ],
            colour,
        )  # fmt: skip

    def disc(self, u: float, v: float, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        self.polygon(
            np.column_stack([u + radius * np.cos(turn), v + radius * np.sin(turn)]), colour
        )

    def sprite(self, *, light: FloatArray, height: float) -> Sprite:
        """Return the drawing, brighter on the side towards the light, cropped to its extent."""
        shrunk = self._image.resize(
            (self._image.width // _OVERSAMPLING,) * 2, resample=Image.Resampling.BOX
        )
        rgba = np.asarray(shrunk, dtype=np.float64)
        alpha = rgba[..., 3] / 255.0
        rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        y, x = np.mgrid[window].astype(np.float64)
        sunward = (x - self._origin[0]) * light[0] + (y - self._origin[1]) * light[1]
        shade = 1.0 + 0.16 * sunward / max(float(np.abs(sunward).max()), 1.0)
        return Sprite(
            pixels=rgba[window][..., :3] * shade[..., None],
            alpha=alpha[window],
            left=self._left + int(columns[0]),
            top=self._top + int(rows[0]),
            height=height,
        )


def lattice_beam(pen: Pen, length: float, width: float, colour: Colour) -> None:
    """Draw a gantry's beam: two girders and the bars between them."""
    half = width / 2
    for side in (-1, 1):
        pen.block(-length / 2, side * half - 1.6, length / 2, side * half + 1.6, colour)
    step = width * 0.8
    for n, u in enumerate(np.arange(-length / 2, length / 2 - step, step).tolist()):
        v = half if n % 2 else -half
        pen.polygon(
            [(u, -v), (u + 1.6, -v), (u + step + 1.6, v), (u + step, v)], _tint(colour, -24)
        )


def _tint(colour: Colour, by: float) -> Colour:
    red, green, blue = (int(np.clip(channel + by, 0, 255)) for channel in colour)
    return red, green, blue


def _one_of(palette: list[Colour], rng: np.random.Generator) -> Colour:
    colour = np.array(palette[int(rng.integers(len(palette)))], dtype=np.float64)
    red, green, blue = np.clip(colour + rng.normal(0, 9, 3) + rng.normal(0, 9), 8, 250).astype(int)
    return int(red), int(green), int(blue)


def _hull(length: float, beam: float, *, fullness: float, shrink: float = 0.0) -> FloatArray:
    """Return the outline of a hull: a pointed bow at ``+u``, a rounded transom at ``-u``."""
    u = np.linspace(-0.5, 0.5, 26)
    ahead = np.clip((u + 0.12) / 0.62, 0, 1)
    aft = np.clip((-0.30 - u) / 0.20, 0, 1)
    half = 0.5 * (1 - ahead**fullness) * (1 - 0.22 * aft**2)
    along, across = u * (length - 2.4 * shrink), half * (beam - 2 * shrink)
    return np.column_stack([np.r_[along, along[::-1]], np.r_[across, -across[::-1]]])


def boat(pen: Pen, length: float, beam: float, rng: np.random.Generator) -> None:
    """Draw a motor boat, a fishing boat, a sailing boat or a rowing boat."""
    hull, deck = _one_of(_HULLS, rng), _one_of(_DECKS, rng)
    fullness = rng.uniform(1.7, 2.6)
    rim = max(beam * 0.10, 1.0)
    pen.polygon(_hull(length, beam, fullness=fullness), _tint(hull, -34))
    pen.polygon(_hull(length, beam, fullness=fullness, shrink=rim * 0.5), hull)
    pen.polygon(_hull(length, beam, fullness=fullness, shrink=rim * 1.6), deck)
    draw_inside = (_motor_boat, _fishing_boat, _sailing_boat, _rowing_boat)
    draw_inside[int(rng.integers(len(draw_inside)))](pen, length, beam, deck)


def _motor_boat(pen: Pen, length: float, beam: float, deck: Colour) -> None:
    half = beam * 0.29
    pen.block(-0.22 * length, -half, 0.16 * length, half, (238, 239, 236), cut=half * 0.3)
    pen.polygon(
        [(0.05 * length, -half), (0.05 * length, half), (0.19 * length, half * 0.7),
         (0.19 * length, -half * 0.7)], _GLASS,
    )  # fmt: skip
    pen.block(-0.15 * length, -half * 0.6, 0.01 * length, half * 0.6, (208, 213, 214), cut=1)
    pen.block(-0.42 * length, -half * 0.9, -0.33 * length, half * 0.9, _tint(deck, -46), cut=1)
    pen.block(-0.53 * length, -beam * 0.08, -0.46 * length, beam * 0.08, _DARK)


def _fishing_boat(pen: Pen, length: float, beam: float, deck: Colour) -> None:
    half = beam * 0.27
    pen.block(0.04 * length, -half, 0.25 * length, half, (232, 228, 214), cut=half * 0.2)
    pen.block(0.19 * length, -half * 0.8, 0.24 * length, half * 0.8, _GLASS)
    pen.block(0.07 * length, -half * 0.55, 0.16 * length, half * 0.55, (196, 78, 52), cut=1)
    pen.block(-0.36 * length, -half * 1.05, -0.06 * length, half * 1.05, (62, 106, 98), cut=2)
    for u in (-0.30, -0.22, -0.14):
        pen.block(u * length, -half, u * length + 1.1, half, (112, 152, 136))
    pen.disc(-0.41 * length, 0, beam * 0.1, _tint(deck, -60))


def _sailing_boat(pen: Pen, length: float, beam: float, deck: Colour) -> None:
    pen.block(-0.34 * length, -beam * 0.2, -0.10 * length, beam * 0.2, _tint(deck, -52), cut=2)
    pen.block(-0.08 * length, -beam * 0.19, 0.2 * length, beam * 0.19, (236, 236, 230), cut=3)
    pen.block(0.10 * length, -beam * 0.11, 0.15 * length, beam * 0.11, _GLASS)
    sail = [(0.12 * length, 0.0), (-0.20 * length, beam * 0.36), (-0.40 * length, beam * 0.30)]
    pen.polygon(sail, (250, 248, 240))
    pen.polygon(
        [(0.46 * length, 0), (0.14 * length, beam * 0.05), (0.12 * length, beam * 0.32)],
        (240, 238, 228),
    )
    pen.disc(0.12 * length, 0, max(beam * 0.07, 1.0), _DARK)


def _rowing_boat(pen: Pen, length: float, beam: float, deck: Colour) -> None:
    pen.polygon(_hull(length, beam, fullness=2.2, shrink=beam * 0.2), _tint(deck, -58))
    for u in (-0.34, -0.10, 0.14):
        pen.block(
            u * length, -beam * 0.36, u * length + 0.07 * length, beam * 0.36, _tint(deck, 22)
        )
    oar = [(-0.02, 0.10), (-0.30, 0.26), (-0.30, 0.31), (-0.02, 0.16)]
    pen.polygon([(u * length, v * beam) for u, v in oar], (226, 206, 164))


def container(pen: Pen, length: float, width: float, rng: np.random.Generator) -> None:
    """Draw a shipping container: ribs across, a frame around, sometimes the owner's mark."""
    colour, half, end = _one_of(_CONTAINERS, rng), width / 2, length / 2
    pen.block(-end, -half, end, half, _tint(colour, -40))
    pen.block(-end + 1, -half + 1, end - 1, half - 1, colour)
    pitch = max(length / 15, 2.2)
    for u in np.arange(-end + 2.2, end - 2.2, pitch).tolist():
        pen.block(u, -half + 1.4, u + pitch * 0.45, half - 1.4, _tint(colour, 24))
    if rng.random() < 0.45:
        mark = rng.uniform(0.12, 0.24) * length
        pen.block(-mark, -half * 0.34, mark, half * 0.34, (228, 226, 218))
    for u, v in ((-end, -half), (-end, half), (end, -half), (end, half)):
        pen.block(u - 1.2, v - 1.2, u + 1.2, v + 1.2, _tint(colour, -72))


def lorry(pen: Pen, length: float, width: float, rng: np.random.Generator) -> None:
    """Draw an articulated lorry: a coloured cab, a pale trailer, wheels out at the sides."""
    cab, trailer, half, end = _one_of(_CABS, rng), _one_of(_TRAILERS, rng), width / 2, length / 2
    for u in (-0.44, -0.35, -0.26, 0.17, 0.38):
        pen.block(u * length - 2.2, -half, u * length + 2.2, half, (26, 27, 30), cut=0.6)
    pen.block(-end + 3, -half * 0.32, end * 0.7, half * 0.32, _DARK)
    pen.block(-end, -half * 0.9, 0.22 * length, half * 0.9, _tint(trailer, -34))
    pen.block(-end + 1, -half * 0.9 + 1, 0.22 * length - 1, half * 0.9 - 1, trailer)
    for u in np.arange(-0.42, 0.2, 0.11).tolist():
        pen.block(u * length, -half * 0.8, u * length + 0.9, half * 0.8, _tint(trailer, -20))
    pen.block(-end + 2, -0.6, 0.22 * length - 2, 0.6, _tint(trailer, -30))
    pen.block(0.27 * length, -half * 0.88, end, half * 0.88, cab, cut=half * 0.24)
    pen.block(0.43 * length, -half * 0.7, 0.475 * length, half * 0.7, _GLASS, cut=0.8)
    pen.block(0.29 * length, -half * 0.55, 0.40 * length, half * 0.55, _tint(cab, 30), cut=1)
    for side in (-1, 1):
        pen.block(
            0.41 * length - 1,
            side * half * 0.98 - 1,
            0.41 * length + 1,
            side * half * 0.98 + 1,
            _DARK,
        )


def buoy(pen: Pen, diameter: float, _width: float, rng: np.random.Generator) -> None:
    """Draw a buoy: a bright float, banded or quartered with white, the lantern in the middle."""
    colour, radius, white = _one_of(_BUOYS, rng), diameter / 2, (244, 243, 236)
    pen.disc(0, 0, radius, _tint(colour, -76))
    pen.disc(0, 0, radius * 0.88, colour)
    if rng.random() < 0.5:
        pen.disc(0, 0, radius * 0.56, white)
        pen.disc(0, 0, radius * 0.42, _tint(colour, -14))
    else:
        for start in (0.0, np.pi):
            turn = np.linspace(start, start + np.pi / 2, 9) + 0.4
            rim = np.column_stack([np.cos(turn), np.sin(turn)]) * radius * 0.8
            pen.polygon(np.vstack([[0.0, 0.0], rim]), white)
        pen.disc(0, 0, radius * 0.40, colour)
    pen.disc(0, 0, radius * 0.22, _tint(colour, -96))
    pen.disc(-radius * 0.34, -radius * 0.52, radius * 0.14, _tint(colour, 90))


DRAW: dict[str, Callable[[Pen, float, float, np.random.Generator], None]] = {
    "boat": boat,
    "container": container,
    "buoy": buoy,
    "lorry": lorry,
}
