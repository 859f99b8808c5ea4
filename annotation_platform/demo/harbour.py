"""One image of a harbour seen from above, drawn with its exact ground truth."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageFilter

from annotation_platform.demo.backgrounds import (
    LIGHT_WEIGHTS,
    LIGHTS,
    Ground,
    Light,
    apply_light,
    draw_ground,
)
from annotation_platform.demo.sprites import DRAW, Pen, Sprite, lattice_beam
from annotation_platform.images.decoding import Pixels
from annotation_platform.schema.geometry import FloatArray

# Probability of each class where there is both land and water.
CLASS_SHARES = {"boat": 0.43, "container": 0.30, "buoy": 0.18, "lorry": 0.09}
MINIMUM_VISIBLE = 0.25

_AFLOAT = {"boat", "buoy"}
_NOTHING = -1
_OCCLUDER = -2  # a gantry: it covers objects and belongs to no class


@dataclass(frozen=True)
class Scene:
    """One image and its objects."""

    pixels: Pixels  # (H, W, 3) RGB
    labels: pd.DataFrame  # class_name x1 y1 x2 y2, pixels; the index is the object's number
    seen: npt.NDArray[np.int16]  # (H, W), number of the object visible at each pixel, or below 0
    visible: dict[int, float]  # visible share of each drawn object, 0 to 1


@dataclass(frozen=True)
class _Placed:
    class_name: str
    sprite: Sprite
    area: float  # square pixels of the whole object, inside the image or not
    shown: float  # square pixels of it that were visible when it was drawn
    angle: float  # radians


class _Canvas:
    """An image on which objects are drawn, with the object visible at each pixel."""

    def __init__(self, ground: Ground, light: Light, sun: FloatArray) -> None:
        self.ground, self.light, self.sun = ground, light, sun
        self.pixels = ground.pixels.copy()
        self.seen = np.full(ground.inland.shape, _NOTHING, dtype=np.int16)
        self.placed: list[_Placed] = []

    def lay(self, sprite: Sprite, number: int) -> None:
        """Draw the sprite and its shadow over the image."""
        self._cast_shadow(sprite)
        inside, part = self._windows(sprite)
        alpha = sprite.alpha[part][..., None]
        self.pixels[inside] = self.pixels[inside] * (1 - alpha) + sprite.pixels[part] * alpha
        self.seen[inside][sprite.alpha[part] >= 0.5] = number

    def fits(self, sprite: Sprite, area: float, class_name: str) -> bool:
        """Return whether enough of the sprite would be visible and little would be hidden by it.

        Stacked containers may overlap by a quarter, any other objects by a tenth.
        """
        inside, part = self._windows(sprite)
        mask = sprite.alpha[part] >= 0.5
        if mask.sum() < 0.2 * area:
            return False
        below, counts = np.unique(self.seen[inside][mask], return_counts=True)
        for number, count in zip(below, counts, strict=True):
            if number == _NOTHING:
                continue
            other = self.placed[number]
            share = 0.25 if class_name == other.class_name == "container" else 0.1
            left = (self.seen == number).sum() - count
            if count >= share * area or left < (1 - share) * other.shown:
                return False
        return True

    def _cast_shadow(self, sprite: Sprite) -> None:
        margin = 4
        padded = Image.fromarray((np.pad(sprite.alpha, margin) * 255).astype(np.uint8))
        soft = np.asarray(padded.filter(ImageFilter.GaussianBlur(1.2)), dtype=np.float64) / 255
        shift = np.rint(-self.sun * sprite.height).astype(int)
        shadow = Sprite(
            pixels=soft[..., None],
            alpha=soft,
            left=sprite.left - margin + int(shift[0]),
            top=sprite.top - margin + int(shift[1]),
            height=0,
        )
        inside, part = self._windows(shadow)
        self.pixels[inside] *= 1 - self.light.shadow * shadow.alpha[part][..., None]

    def _windows(self, sprite: Sprite) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of the image under the sprite, and the part of the sprite over it."""
        height, width = self.seen.shape
        rows, columns = sprite.alpha.shape
        top, left = max(sprite.top, 0), max(sprite.left, 0)
        bottom, right = min(sprite.top + rows, height), min(sprite.left + columns, width)
        bottom, right = max(bottom, top), max(right, left)
        inside = (slice(top, bottom), slice(left, right))
        part = (
            slice(top - sprite.top, bottom - sprite.top),
            slice(left - sprite.left, right - sprite.left),
        )
        return inside, part


def draw_scene(rng: np.random.Generator, *, width: int = 320, height: int = 240) -> Scene:
    """Return one harbour seen from above, with about eight objects in it.

    A ground truth box is the extent, to the pixel, of the visible part of its object: the pixels
    that the object covers by half or more and that no later object covers. An object of which less
    than a quarter is visible has no box; the part outside the image counts as not visible.
    """
    ground = draw_ground(rng, width=width, height=height)
    light = LIGHTS[int(rng.choice(len(LIGHTS), p=LIGHT_WEIGHTS))]
    bearing = rng.uniform(0, 2 * np.pi)
    canvas = _Canvas(ground, light, np.array([np.cos(bearing), np.sin(bearing)]))
    zoom = ground.unit * rng.uniform(0.88, 1.22)
    shares = {
        name: share
        for name, share in CLASS_SHARES.items()
        if (ground.inland < 0 if name in _AFLOAT else ground.inland > 0).any()
    }
    chances = np.array(list(shares.values())) / sum(shares.values())
    names = rng.choice(list(shares), size=int(rng.integers(5, 14)), p=chances)
    for name in names:
        _place(canvas, str(name), zoom, rng)
    if (ground.inland > 0).any() and rng.random() < 0.2:
        _lay_gantry(canvas, rng)
    labels, visible = _read_truth(canvas)
    lit = apply_light(canvas.pixels, light, ground, rng)
    return Scene(_develop(lit, rng), labels, canvas.seen, visible)


def _place(canvas: _Canvas, name: str, zoom: float, rng: np.random.Generator) -> None:
    """Draw one object where there is room for it; without room, none."""
    length, width, height = _size(name, rng)
    length, width, height = length * zoom, width * zoom, height * zoom
    moored = name == "boat" and rng.random() < 0.3
    for _ in range(40):
        x, y, angle = _berth(canvas, width, rng) if moored else _pose(canvas, name, width, rng)
        if not _is_on_its_ground(canvas.ground, name, (x, y), angle, (length, width)):
            continue
        pen = Pen((x, y), angle, 0.56 * float(np.hypot(length, width)))
        DRAW[name](pen, length, width, rng)
        sprite = pen.sprite(light=canvas.sun, height=height)
        area = float((sprite.alpha >= 0.5).sum())
        if canvas.fits(sprite, area, name):
            if name == "boat" and not moored and rng.random() < 0.5:
                _draw_wake(canvas, (x, y), angle, (length, width), rng)
            number = len(canvas.placed)
            canvas.lay(sprite, number)
            shown = float((canvas.seen == number).sum())
            canvas.placed.append(_Placed(name, sprite, area, shown, angle))
            return


def _size(name: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return length, width and height of an object, in pixels of an image of 320 x 240."""
    if name == "boat":
        length = rng.uniform(40, 82)
        return length, max(length * rng.uniform(0.31, 0.40), 15.5), 4.5
    if name == "container":
        return float(rng.choice([34, 56])) * rng.uniform(0.95, 1.05), rng.uniform(18, 20.5), 6.5
    if name == "lorry":
        return rng.uniform(62, 80), rng.uniform(18, 20.5), 8.0
    diameter = rng.uniform(17, 25)
    return diameter, diameter, 4.0


def _pose(
    canvas: _Canvas, name: str, width: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return a random position: x, y and angle. Cargo is parallel to the quay, often in rows."""
    rows, columns = canvas.seen.shape
    x, y = rng.uniform(-4, columns + 4), rng.uniform(-4, rows + 4)
    if name in _AFLOAT:
        return x, y, float(rng.uniform(0, 2 * np.pi))
    quarter = float(rng.integers(4)) * np.pi / 2
    angle = canvas.ground.along + quarter + float(rng.normal(0, 0.06))
    containers = [one for one in canvas.placed if one.class_name == "container"]
    if name == "container" and containers and rng.random() < 0.4:
        other = containers[int(rng.integers(len(containers)))]
        rows, columns = other.sprite.alpha.shape
        x, y = other.sprite.left + columns / 2, other.sprite.top + rows / 2
        # Mostly in a row, sometimes stacked, so that one hides a part of the other.
        away = width * rng.uniform(0.75, 1.35) * float(rng.choice([-1, 1]))
        x, y = x - np.sin(other.angle) * away, y + np.cos(other.angle) * away
        angle = other.angle + float(rng.normal(0, 0.02))
    return x, y, angle


def _berth(canvas: _Canvas, beam: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a position alongside the quay: x, y and angle; anywhere if there is no quay."""
    away = beam / 2 + 5 * canvas.ground.unit
    rows, columns = np.nonzero(np.abs(canvas.ground.inland + away) < 0.7)
    angle = canvas.ground.along + np.pi / 2 * float(rng.integers(4)) + float(rng.normal(0, 0.04))
    if not len(rows):
        return _pose(canvas, "boat", beam, rng)
    one = int(rng.integers(len(rows)))
    return float(columns[one]), float(rows[one]), angle


def _is_on_its_ground(
    ground: Ground, name: str, centre: tuple[float, float], angle: float, size: tuple[float, float]
) -> bool:
    """Return whether a boat is on water, cargo on land: at its four corners and its middle."""
    along = np.array([np.cos(angle), np.sin(angle)]) * size[0] / 2
    aside = np.array([-np.sin(angle), np.cos(angle)]) * size[1] / 2
    points = np.array(centre) + np.array(
        [along + aside, along - aside, -along + aside, -along - aside, 0 * along]
    )
    height, width = ground.inland.shape
    columns = np.clip(points[:, 0], 0, width - 1).astype(int)
    rows = np.clip(points[:, 1], 0, height - 1).astype(int)
    inland = ground.inland[rows, columns]
    if name in _AFLOAT:
        return bool((inland < -3 * ground.unit).all())
    return bool((inland > 5 * ground.unit).all())


def _draw_wake(
    canvas: _Canvas,
    centre: tuple[float, float],
    angle: float,
    size: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Draw the foam behind a moving boat."""
    height, width = canvas.seen.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    behind = -((x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)) - size[0] * 0.42
    aside = np.abs(-(x - centre[0]) * np.sin(angle) + (y - centre[1]) * np.cos(angle))
    reach = size[0] * rng.uniform(0.9, 1.6)
    fade = np.clip(1 - behind / reach, 0, 1) * np.clip(behind / 4, 0, 1)
    arms = np.exp(-(((aside - size[1] * 0.28 - 0.22 * behind) / (1.6 + 0.035 * behind)) ** 2))
    churn = 0.8 * np.exp(-((aside / (size[1] * 0.2)) ** 2)) * fade
    foam = (arms + churn) * fade * np.clip(0.62 + 0.3 * rng.normal(size=x.shape), 0, 1)
    foam *= (behind > 0) & (canvas.seen == _NOTHING) & (canvas.ground.inland < 0)
    canvas.pixels += foam[..., None] * (np.array([226, 236, 238]) - canvas.pixels) * 0.75


def _lay_gantry(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Draw a gantry's beam across the image: it has no class and hides the objects below it."""
    height, width = canvas.seen.shape
    centre = (rng.uniform(0.4, 0.6) * width, rng.uniform(0.4, 0.6) * height)
    length = 1.3 * float(np.hypot(width, height))
    pen = Pen(centre, canvas.ground.along + np.pi / 2 + rng.normal(0, 0.05), length / 2 + 10)
    lattice_beam(pen, length, 11 * canvas.ground.unit, (220, 164, 36))
    canvas.lay(pen.sprite(light=canvas.sun, height=15 * canvas.ground.unit), _OCCLUDER)


def _read_truth(canvas: _Canvas) -> tuple[pd.DataFrame, dict[int, float]]:
    rows: list[dict[str, object]] = []
    visible: dict[int, float] = {}
    for number, placed in enumerate(canvas.placed):
        y, x = np.nonzero(canvas.seen == number)
        visible[number] = len(x) / placed.area
        if visible[number] >= MINIMUM_VISIBLE:
            box = (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))
            rows.append({"number": number, "class_name": placed.class_name,
                         **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))})  # fmt: skip
    columns = ["number", "class_name", "x1", "y1", "x2", "y2"]
    return pd.DataFrame(rows, columns=columns).set_index("number"), visible


def _develop(lit: FloatArray, rng: np.random.Generator) -> Pixels:
    """Return the image as a camera records it: slightly blurred, noisy, with eight bits."""
    exposed = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    blurred = exposed.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.7))))
    grain = rng.normal(0, rng.uniform(1.0, 3.2), size=lit.shape)
    return np.asarray(np.clip(np.asarray(blurred) + grain, 0, 255).astype(np.uint8))
