"""Water, quays and light: the ground below the objects of the demo's harbour, and its light."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from annotation_platform.schema.geometry import FloatArray

_WATERS = [(28, 74, 104), (30, 98, 108), (52, 92, 92), (74, 92, 84), (22, 56, 88), (46, 112, 132)]
_GROUNDS = {"tarmac": (92, 94, 98), "concrete": (158, 154, 146), "sand": (198, 176, 136)}


@dataclass(frozen=True)
class Light:
    """The time of day and the weather."""

    name: str
    gain: tuple[float, float, float]
    haze: float  # 0 clear to 1 opaque
    haze_colour: tuple[int, int, int]
    shadow: float  # 0 none to 1 black
    lamps: bool = False


LIGHTS = (
    Light("noon", (1.08, 1.06, 1.02), 0.0, (255, 255, 255), 0.46),
    Light("overcast", (0.86, 0.90, 0.94), 0.06, (206, 212, 216), 0.20),
    Light("haze", (0.98, 0.98, 0.97), 0.34, (214, 216, 214), 0.22),
    Light("golden", (1.16, 0.94, 0.70), 0.06, (255, 190, 120), 0.50),
    Light("glare", (1.30, 1.28, 1.22), 0.10, (255, 252, 240), 0.42),
    Light("dusk", (0.36, 0.40, 0.58), 0.05, (74, 72, 110), 0.24, lamps=True),
)
LIGHT_WEIGHTS = (0.30, 0.19, 0.14, 0.15, 0.10, 0.12)


@dataclass(frozen=True)
class Ground:
    """An empty harbour: its image, and the distance of every pixel from the water's edge."""

    pixels: FloatArray  # (H, W, 3), 0 to 255
    inland: FloatArray  # (H, W), pixels from the edge: above zero on land, below on water
    along: float  # direction of the quay, radians
    unit: float  # pixels of this image for each pixel of one of 320 x 240


def noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int = 4
) -> FloatArray:
    """Return a smooth random field of ``shape`` with mean near zero and deviation near one.

    ``cell`` is the size in pixels of its largest features; each octave halves it.
    """
    height, width = shape
    total = np.zeros(shape)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        grid = rng.normal(size=(int(height / size) + 2, int(width / size) + 2)).astype(np.float32)
        smooth = Image.fromarray(grid).resize((width, height), resample=Image.Resampling.BICUBIC)
        total += np.asarray(smooth, dtype=np.float64) * 0.6**octave
    return np.asarray(total / max(float(total.std()), 1e-9))


def draw_ground(rng: np.random.Generator, *, width: int, height: int) -> Ground:
    """Return an empty harbour: a quay, a pier, a corner, open water or a yard, at any angle."""
    unit = float(np.sqrt(width * height / (320 * 240)))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    along = float(rng.uniform(0, 2 * np.pi))
    x_from_middle, y_from_middle = x - width / 2, y - height / 2
    across = -x_from_middle * np.sin(along) + y_from_middle * np.cos(along)
    lengthwise = x_from_middle * np.cos(along) + y_from_middle * np.sin(along)
    inland = _shore(rng, across, lengthwise, unit)
    water = _water(rng, x, y, inland, unit)
    land = _land(rng, inland, across, lengthwise, unit)
    # The edge is blended over half a pixel on either side, against aliasing.
    share = np.clip(inland + 0.5, 0, 1)[..., None]
    return Ground(pixels=water * (1 - share) + land * share, inland=inland, along=along, unit=unit)


def _shore(
    rng: np.random.Generator, across: FloatArray, lengthwise: FloatArray, unit: float
) -> FloatArray:
    kind = rng.choice(["quay", "pier", "corner", "open", "yard"], p=[0.42, 0.16, 0.24, 0.11, 0.07])
    if kind == "quay":
        return across - rng.uniform(-25, 55) * unit
    if kind == "pier":
        return rng.uniform(30, 46) * unit - np.abs(across - rng.uniform(-50, 50) * unit)
    if kind == "corner":
        return np.maximum(
            across - rng.uniform(15, 60) * unit, lengthwise - rng.uniform(35, 95) * unit
        )
    return np.full(across.shape, 1e3 if kind == "yard" else -1e3)


def _water(
    rng: np.random.Generator, x: FloatArray, y: FloatArray, inland: FloatArray, unit: float
) -> FloatArray:
    colour = np.array(_WATERS[int(rng.integers(len(_WATERS)))]) * rng.uniform(0.85, 1.2)
    wind, shape = rng.uniform(0, np.pi), (x.shape[0], x.shape[1])
    swell = noise(rng, shape, 90 * unit)
    chop = noise(rng, shape, 14 * unit)
    phase = (x * np.cos(wind) + y * np.sin(wind)) / (rng.uniform(1.3, 2.2) * unit) + 2.6 * swell
    ripple = np.sin(phase + 1.4 * chop)
    depth = np.clip(-inland / (90 * unit), 0, 1)
    strength = rng.uniform(3, 7)
    brightness = 8 * swell + strength * ripple * (0.6 + 0.25 * chop) + 5 * chop - 14 * depth
    pixels = colour + brightness[..., None] * np.array([0.8, 1.0, 1.05])
    glint = np.clip(ripple + 0.55 * chop - 1.75, 0, 1) * rng.uniform(30, 110)
    edge = np.clip(1 + (inland + 1) / (5.0 * unit), 0, 1) * np.clip(chop + 0.9, 0, 1.6)
    return np.asarray(pixels + (glint + 46 * edge)[..., None])


def _land(
    rng: np.random.Generator,
    inland: FloatArray,
    across: FloatArray,
    lengthwise: FloatArray,
    unit: float,
) -> FloatArray:
    shape = (inland.shape[0], inland.shape[1])
    kind = str(rng.choice(list(_GROUNDS), p=[0.45, 0.38, 0.17]))
    stains, wear = noise(rng, shape, 70 * unit), noise(rng, shape, 9 * unit)
    brightness = 7 * stains + 4 * wear + rng.normal(0, 4, size=shape)
    pixels = np.array(_GROUNDS[kind]) * rng.uniform(0.82, 1.16) + brightness[..., None]
    # A yard has no edge to measure from: its slabs are measured from the middle.
    depth = inland if float(inland.min()) < 999 else across
    if kind == "concrete":
        for distance in (depth, lengthwise):
            joint = np.abs((distance + 6 * unit) % (34 * unit) - 17 * unit) < 0.7
            pixels[joint] -= 26
    elif kind == "tarmac":
        dashes = (np.abs(depth - 42 * unit) < 1.0 * unit) & (lengthwise % (18 * unit) < 10 * unit)
        pixels[dashes] = pixels[dashes] * 0.3 + np.array([236, 232, 214]) * 0.7
    else:
        pixels += (6 * np.sin(depth / (3.2 * unit) + 2 * stains))[..., None]
    if kind != "sand":
        _quay_edge(pixels, inland, lengthwise, unit)
    return pixels


def _quay_edge(pixels: FloatArray, inland: FloatArray, lengthwise: FloatArray, unit: float) -> None:
    """Draw the kerb, its yellow line and the bollards into ``pixels``."""
    pixels[inland < 4.5 * unit] = pixels[inland < 4.5 * unit] * 0.35 + 116
    line = (inland > 6 * unit) & (inland < 7.4 * unit)
    pixels[line] = pixels[line] * 0.35 + np.array([226, 182, 52]) * 0.65
    along = (lengthwise % (44 * unit)) - 22 * unit
    bollard = np.hypot(along, inland - 2.4 * unit) < 1.9 * unit
    pixels[bollard] = (46, 44, 44)


def apply_light(
    pixels: FloatArray, light: Light, ground: Ground, rng: np.random.Generator
) -> FloatArray:
    """Return the scene in this light: tinted, hazy, vignetted; with lamps at dusk."""
    height, width = ground.inland.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    lit = pixels * np.array(light.gain) * rng.uniform(0.92, 1.08)
    if light.lamps:
        lit = lit + pixels * _lamps(ground, x, y, rng)[..., None] * np.array([1.0, 0.78, 0.46])
    patches = np.clip(1 + 0.35 * noise(rng, (height, width), 140 * ground.unit, 2), 0.2, 1.8)
    veil = np.clip(light.haze * patches, 0, 0.62)[..., None]
    lit = lit * (1 - veil) + np.array(light.haze_colour) * veil
    turn = rng.uniform(0, 2 * np.pi)
    slope = ((x / width - 0.5) * np.cos(turn) + (y / height - 0.5) * np.sin(turn)) * 0.22
    corner = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 0.30
    return np.asarray(lit * (1 + slope - corner)[..., None])


def _lamps(ground: Ground, x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the lamplight at every pixel: pools of light along the quay."""
    glow = np.zeros(x.shape)
    rows, columns = np.nonzero(np.abs(ground.inland - 14 * ground.unit) < 1.0)
    for index in rng.permutation(len(rows))[:5]:
        distance = np.hypot(x - columns[index], y - rows[index]) / (38 * ground.unit)
        glow = np.maximum(glow, 1.0 * np.exp(-(distance**2)))
    return glow
