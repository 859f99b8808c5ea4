"""Small images and tables for the Dagster UI: Markdown, never more than 100 kB together."""

import base64
import io
import math
import re
import textwrap
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeAlias

import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from annotation_platform.images.decoding import Pixels, decode
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology, class_colors
from annotation_platform.schema.shapes import SHAPES, UPRIGHT_BOXES, Label
from annotation_platform.schema.tables import CleanedImages, Frame, ModelErrors, records
from annotation_platform.storage.cache import Cache

_LIMIT = 45_000
"""Largest size of a preview, in bytes, so that two of them fit into an asset's 100 kB."""
_SHOWN, _SIDE, _COLUMNS = 8, 200, 4
"""Images of a preview, the longer side of each in pixels, and the columns of every sheet."""
_TILES, _TILE = 12, 170
"""Captioned images of a preview, and the longer side of each in pixels."""
_LONGEST_CELL = 60
_LEGEND_SIZE = 13
_LEGEND_CLASSES = 12
_DIGEST = re.compile(r"[0-9a-f]{32,}")
_IMAGES = re.compile(
    r"!\[images with their boxes(?:: (?P<names>[^\]]*))?\]\(data:image/jpeg;base64,[^)]*\)"
)
_Scaled: TypeAlias = tuple[Image.Image, float]
_SCALED: Cache[_Scaled] = Cache(16 * 2**20)
"""Images of previews without boxes, by id: many assets of a run show the same ones."""
SHORT_ID = 12
"""Number of digits of an image id in previews."""


def table_preview(frame: pd.DataFrame, *, rows: int = 8, columns: Sequence[str] = ()) -> str:
    """Return the first rows as a Markdown table; long values are cut, markup is escaped."""
    shown = frame[list(columns)] if columns else frame
    head = "| " + " | ".join(map(_cell, shown.columns)) + " |"
    rule = "|" + " --- |" * len(shown.columns)
    body = ["| " + " | ".join(map(_cell, row)) + " |" for row in shown.head(rows).to_numpy()]
    more = len(shown) - rows
    return "\n".join([head, rule, *body, *([f"\n… and {more} more rows"] if more > 0 else [])])


def thumbnail(
    pixels: Pixels, boxes: pd.DataFrame, colors: Mapping[str, str], *, side: int
) -> Image.Image:
    """Return the image scaled into ``side`` × ``side`` pixels, with its boxes drawn on it."""
    return _drawn(*_scaled(pixels, side), boxes, colors)


def _scaled(pixels: Pixels, side: int) -> _Scaled:
    """Return the image scaled into ``side`` × ``side`` pixels, and the factor; 1 at most."""
    image = Image.fromarray(pixels)
    scale = min(side / image.width, side / image.height, 1.0)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS), scale


def _drawn(
    image: Image.Image, scale: float, boxes: pd.DataFrame, colors: Mapping[str, str]
) -> Image.Image:
    """Return the scaled image with its boxes drawn on it."""
    pen = ImageDraw.Draw(image)
    for row in boxes.to_dict("records"):
        color = colors.get(str(row["class_name"]), "#ffffff")
        _draw(pen, row, scale, color)
    return image


def _draw(pen: ImageDraw.ImageDraw, row: dict[Hashable, Any], scale: float, color: str) -> None:
    """Draw a region in the way of its shape; a row without a shape is a box."""
    corners = (float(row[name]) for name in BOX_COLUMNS)
    name = row.get("shape") or UPRIGHT_BOXES[0]
    label = Label(name, row["class_name"], row.get("geometry") or "", *corners)
    SHAPES[name].draw(pen, label, scale=scale, color=color)


def contact_sheet(drawn: Sequence[Image.Image], *, gap: int = 4) -> Image.Image:
    """Return the images in a grid on white, row by row; without images, one white pixel."""
    if not drawn:
        return Image.new("RGB", (1, 1), "white")
    columns = min(_COLUMNS, len(drawn))
    width = max(image.width for image in drawn) + gap
    height = max(image.height for image in drawn) + gap
    lines = -(-len(drawn) // columns)
    sheet = Image.new("RGB", (columns * width - gap, lines * height - gap), "white")
    for position, image in enumerate(drawn):
        left, top = position % columns * width, position // columns * height
        sheet.paste(image, (left, top))
    return sheet


def images_preview(
    images: pd.DataFrame,
    load: Callable[[str, str], bytes],
    *,
    labels: pd.DataFrame | None = None,
    ontology: Ontology | None = None,
) -> str:
    """Return Markdown with thumbnails of the first eight images and their boxes.

    Args:
        images: rows with ``image_id`` and ``extension``.
        load: returns the bytes of an image, by its id and extension.
        labels: rows with ``image_id``, ``class_name`` and box columns; rows without a box are
            left out.
        ontology: the classes with their colours; needed if there are labels.
    """
    if labels is None or ontology is None:
        labels, colors = pd.DataFrame(columns=["image_id", "class_name", *BOX_COLUMNS]), {}
    else:
        labels, colors = labels.dropna(subset=["x1"]), class_colors(ontology)
    drawn = []
    for image_id, extension in (
        images[["image_id", "extension"]].head(_SHOWN).itertuples(index=False)
    ):
        boxes = labels[labels["image_id"] == image_id]
        # Loaded each time, because a logged store records who was shown what.
        data = load(image_id, extension)

        def make(data: bytes = data) -> tuple[int, _Scaled]:
            image, scale = _scaled(decode(data), _SIDE)
            return 3 * image.width * image.height, (image, scale)

        image, scale = _SCALED.get(image_id, make)
        drawn.append(_drawn(image.copy(), scale, boxes, colors))
    counts = {name: int((labels["class_name"] == name).sum()) for name in colors}
    shown = images["image_id"].head(_SHOWN)
    return _as_markdown(_with_legend(contact_sheet(drawn), colors, counts), shown)


def quarantine_preview(rows: Frame[CleanedImages], load: Callable[[str], bytes]) -> str:
    """Return Markdown with twelve quarantined images and the reasons.

    The caption of each image has the first digits of its id, for a restore, its name and the
    reason. Images that can be decoded come first; the others are grey fields. ``load`` returns the
    landed bytes of an image id.
    """
    tiles, shown = [], []
    ordered = rows.sort_values(CleanedImages.width, ascending=False, kind="stable")
    for row in ordered.head(_TILES).itertuples():
        if row.width and isinstance(row.image_id, str):
            image = thumbnail(decode(load(row.image_id)), rows[:0], {}, side=_TILE)
        else:
            image = Image.new("RGB", (_TILE, _TILE * 3 // 4), "#dddddd")
        name = row.image_id[:SHORT_ID] if isinstance(row.image_id, str) else "not readable"
        lines = [name, PurePosixPath(str(row.source_key)).name, str(row.reason)]
        tiles.append(_captioned(image, lines, width=_TILE))
        shown.append(name)
    return _as_markdown(contact_sheet(tiles, gap=16), shown)


def findings_preview(
    findings: pd.DataFrame,
    truth: pd.DataFrame,
    load: Callable[[str, str], bytes],
) -> str:
    """Return Markdown with a model's worst errors: ground truth boxes green, the error red.

    Each crop shows a margin around the error, half its longer side wide. The worst errors of the
    types alternate, so that the most frequent type does not fill the page.

    Args:
        findings: ``model_errors``, in the order of ``rank``.
        truth: ``image_id``, ``extension`` and boxes of the images.
        load: returns the bytes of an image, by its id and extension.
    """
    tiles, worst = [], worst_findings(findings, _TILES)
    for row, image in zip(worst, error_images(worst, truth, load, side=_TILE), strict=True):
        image_id = str(row[ModelErrors.image_id])
        lines = [finding_title(row), image_id[:SHORT_ID]]
        tiles.append(_captioned(image, lines, width=_TILE))
    return _as_markdown(
        contact_sheet(tiles, gap=16), [str(row[ModelErrors.image_id]) for row in worst]
    )


def worst_findings(findings: Frame[ModelErrors], count: int) -> list[dict[str, object]]:
    """Return at most ``count`` of the worst ``model_errors``, alternating between their kinds."""
    turns = findings.assign(turn=findings.groupby(ModelErrors.kind).cumcount())
    return records(turns.sort_values(["turn", ModelErrors.rank], kind="stable").head(count))


def finding_title(row: Mapping[str, object]) -> str:
    """Return the kind and the class of an error, with the score of a wrong box."""
    score = row[ModelErrors.score]
    suffix = f" at {score:.2f}" if isinstance(score, float) and not math.isnan(score) else ""
    return f"{row[ModelErrors.kind]}: {row[ModelErrors.class_name]}{suffix}"


def error_images(
    rows: Iterable[Mapping[str, Any]],
    truth: pd.DataFrame,
    load: Callable[[str, str], bytes],
    *,
    side: int,
) -> Iterator[Image.Image]:
    """Yield a crop around each error: ground truth boxes green, the error red."""
    extensions = dict(zip(truth["image_id"], truth["extension"], strict=True))
    colors = {"true": "#2ca02c", "found": "#d62728"}
    for row in rows:
        pixels = decode(load(row["image_id"], extensions[row["image_id"]]))
        own = truth.loc[truth["image_id"] == row["image_id"], BOX_COLUMNS].dropna()
        boxes = pd.concat([own.assign(class_name="true"), pd.DataFrame([row])[BOX_COLUMNS]])
        boxes["class_name"] = boxes["class_name"].fillna("found")
        crop, boxes = _crop(pixels, boxes)
        yield thumbnail(crop, boxes, colors, side=side)


def _crop(pixels: Pixels, boxes: pd.DataFrame) -> tuple[Pixels, pd.DataFrame]:
    """Return the crop around the last of the boxes, and all boxes in its coordinates."""
    x1, y1, x2, y2 = (float(value) for value in boxes[BOX_COLUMNS].iloc[-1])
    height, width = pixels.shape[:2]
    reach = max(x2 - x1, y2 - y1, 32.0) / 2
    left, top = max(0, int(x1 - reach)), max(0, int(y1 - reach))
    right, bottom = min(width, int(x2 + reach) + 1), min(height, int(y2 + reach) + 1)
    moved = boxes.assign(**{name: boxes[name] - left for name in ("x1", "x2")})
    moved = moved.assign(**{name: boxes[name] - top for name in ("y1", "y2")})
    return pixels[top:bottom, left:right], moved


def _captioned(image: Image.Image, lines: Sequence[str], *, width: int) -> Image.Image:
    """Return the image in the middle of a framed tile of fixed size, with the lines below it."""
    height = width * 3 // 4
    image = ImageOps.contain(image, (width, height)) if image.height > height else image
    font = ImageFont.load_default(_LEGEND_SIZE)
    tile = Image.new("RGB", (width, height + 15 * 5), "white")
    tile.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    pen = ImageDraw.Draw(tile)
    pen.rectangle((0, 0, width - 1, height - 1), outline="#bbbbbb")
    wrapped = [part for line in lines for part in textwrap.wrap(line, width // 8)[:3]]
    for number, text in enumerate(wrapped[:5]):
        plain = text.encode("ascii", "replace").decode()
        pen.text((0, height + 2 + 14 * number), plain, fill="#333333", font=font)
    return tile


def _with_legend(
    sheet: Image.Image, colors: Mapping[str, str], counts: Mapping[str, int]
) -> Image.Image:
    """Return the sheet with a legend below: its classes in their colours, with counts."""
    shown = [name for name in colors if counts[name]]
    if not shown:
        return sheet
    font = ImageFont.load_default(_LEGEND_SIZE)
    entries = [(name, f"{name[:24]} {counts[name]}") for name in shown[:_LEGEND_CLASSES]]
    legend = Image.new("RGB", (sheet.width, 2 * _LEGEND_SIZE), "white")
    pen, left = ImageDraw.Draw(legend), 0.0
    for name, text in entries:
        pen.rectangle((left, 8, left + 10, 18), fill=colors[name])
        pen.text((left + 16, 4), text, fill="#333333", font=font)
        left += 16 + pen.textlength(text, font=font) + 18
    both = Image.new("RGB", (sheet.width, sheet.height + legend.height), "white")
    both.paste(sheet, (0, 0))
    both.paste(legend, (0, sheet.height))
    return both


def _as_markdown(sheet: Image.Image, shown: Iterable[str]) -> str:
    """Return the sheet as a data URI, at the best JPEG quality below the size limit.

    Its alternative text names the images ``shown``; an erasure finds them by it.
    """
    for quality in (85, 75, 60, 45, 30, 15):
        sink = io.BytesIO()
        sheet.save(sink, format="JPEG", quality=quality)
        if sink.tell() * 4 // 3 < _LIMIT:
            break
    else:
        return _as_markdown(sheet.resize((sheet.width // 2, sheet.height // 2)), shown)
    encoded = base64.b64encode(sink.getvalue()).decode()
    names = ", ".join(dict.fromkeys(each[:SHORT_ID] for each in shown))
    return f"![images with their boxes: {names}](data:image/jpeg;base64,{encoded})"


def without_images(text: str, images: Collection[str]) -> str:
    """Return a text without the previews that show one of these images.

    ``text`` is Markdown, or JSON that holds it. Previews of earlier releases, which do not name
    their images, are removed too.
    """
    erased = {image[:SHORT_ID] for image in images}

    def replacement(match: re.Match[str]) -> str:
        names = match["names"]
        is_other = names is not None and erased.isdisjoint(names.split(", "))
        return match[0] if is_other else "*Images were erased. Materialise the asset again.*"

    return _IMAGES.sub(replacement, text)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    text = "–" if value is None or value is pd.NA or value is pd.NaT else str(value)
    text = _DIGEST.sub(lambda found: found.group()[:10], text)
    text = text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
    for mark in "\\`*_{}[]<>()#|!":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
