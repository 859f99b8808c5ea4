"""Small images and tables for the Dagster UI: Markdown, never more than 100 kB together."""

import base64
import io
import math
import re
import textwrap
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from annotation_platform.images.decoding import Pixels, decode
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology, class_colors
from annotation_platform.schema.shapes import SHAPES, UPRIGHT_BOXES, Label
from annotation_platform.schema.tables import records

_LIMIT = 45_000
"""Bytes of a preview: two of them and the rest of an asset stay under 100 kB."""
_LONGEST_CELL = 60
_LEGEND_SIZE = 13
_LEGEND_CLASSES = 12
_DIGEST = re.compile(r"[0-9a-f]{32,}")
_IMAGES = re.compile(
    r"!\[images with their boxes(?:: (?P<names>[^\]]*))?\]\(data:image/jpeg;base64,[^)]*\)"
)
SHORT_ID = 12
"""Digits of an image id that previews show."""


def table_preview(frame: pd.DataFrame, *, rows: int = 8, columns: Sequence[str] = ()) -> str:
    """Return the first rows as a Markdown table; long values are cut, markup is defused."""
    shown = frame[list(columns)] if columns else frame
    head = "| " + " | ".join(map(_cell, shown.columns)) + " |"
    rule = "|" + " --- |" * len(shown.columns)
    body = ["| " + " | ".join(map(_cell, row)) + " |" for row in shown.head(rows).to_numpy()]
    more = len(shown) - rows
    return "\n".join([head, rule, *body, *([f"\n… and {more} more rows"] if more > 0 else [])])


def thumbnail(
    pixels: Pixels, boxes: pd.DataFrame, colors: Mapping[str, str], *, side: int
) -> Image.Image:
    """Return the image within ``side`` × ``side`` pixels with its boxes drawn on it."""
    image = Image.fromarray(pixels)
    scale = min(side / image.width, side / image.height, 1.0)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    for row in boxes.to_dict("records"):
        color = colors.get(str(row["class_name"]), "#ffffff")
        _draw(pen, row, scale, color)
    return image


def _draw(pen: ImageDraw.ImageDraw, row: dict[Hashable, Any], scale: float, color: str) -> None:
    """Draw a region as its shape does; a row without a shape is a box."""
    corners = (float(row[name]) for name in BOX_COLUMNS)
    name = row.get("shape") or UPRIGHT_BOXES[0]
    label = Label(name, row["class_name"], row.get("geometry") or "", *corners)
    SHAPES[name].draw(pen, label, scale=scale, color=color)


def contact_sheet(drawn: Sequence[Image.Image], *, columns: int = 4, gap: int = 4) -> Image.Image:
    """Return the images side by side on white, row by row; none give one white pixel."""
    if not drawn:
        return Image.new("RGB", (1, 1), "white")
    columns = min(columns, len(drawn))
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
    count: int = 8,
    side: int = 200,
) -> str:
    """Return Markdown with thumbnails of the first ``count`` images and their boxes.

    Args:
        images: rows with ``image_id`` and ``extension``.
        load: gives the bytes of an image for its id and extension.
        labels: rows with ``image_id``, ``class_name`` and box columns; rows without a box are
            left out.
        ontology: gives the classes their colours; needed where there are labels.
        count: how many images.
        side: pixels of a thumbnail's longer side.
    """
    if labels is None or ontology is None:
        labels, colors = pd.DataFrame(columns=["image_id", "class_name", *BOX_COLUMNS]), {}
    else:
        labels, colors = labels.dropna(subset=["x1"]), class_colors(ontology)
    drawn = []
    for image_id, extension in (
        images[["image_id", "extension"]].head(count).itertuples(index=False)
    ):
        boxes = labels[labels["image_id"] == image_id]
        drawn.append(thumbnail(decode(load(image_id, extension)), boxes, colors, side=side))
    counts = {name: int((labels["class_name"] == name).sum()) for name in colors}
    shown = images["image_id"].head(count)
    return _as_markdown(_with_legend(contact_sheet(drawn), colors, counts), shown)


def kept_out_preview(
    rows: pd.DataFrame, load: Callable[[str], bytes], *, count: int = 12, side: int = 170
) -> str:
    """Return Markdown with ``count`` images of ``cleaned_images`` and why they were kept out.

    Under each stand the first digits of its id, for putting it back, its name and the reason.
    What can be looked at comes first; what cannot be decoded is a grey field. ``load`` gives the
    bytes of an image id as they landed.
    """
    tiles, shown = [], []
    for row in rows.sort_values("width", ascending=False, kind="stable").head(count).itertuples():
        if row.width and isinstance(row.image_id, str):
            image = thumbnail(decode(load(row.image_id)), rows[:0], {}, side=side)
        else:
            image = Image.new("RGB", (side, side * 3 // 4), "#dddddd")
        name = row.image_id[:12] if isinstance(row.image_id, str) else "not readable"
        lines = [name, PurePosixPath(str(row.source_key)).name, str(row.reason)]
        tiles.append(_captioned(image, lines, width=side))
        shown.append(name)
    return _as_markdown(contact_sheet(tiles, gap=16), shown)


def findings_preview(
    findings: pd.DataFrame,
    truth: pd.DataFrame,
    load: Callable[[str, str], bytes],
    *,
    count: int = 12,
    side: int = 170,
) -> str:
    """Return Markdown with the worst of a model's findings: true boxes green, the finding red.

    Each is cut out with as much again around it. The worst of every kind come in turns, so that
    the commonest kind does not fill the page.

    Args:
        findings: ``model_findings``, in the order of ``rank``.
        truth: ``image_id``, ``extension`` and boxes of the images.
        load: gives the bytes of an image for its id and extension.
        count: how many.
        side: pixels of an image's longer side.
    """
    tiles, worst = [], worst_findings(findings, count)
    for row, image in zip(worst, error_images(worst, truth, load, side=side), strict=True):
        lines = [finding_title(row), str(row["image_id"])[:12]]
        tiles.append(_captioned(image, lines, width=side))
    return _as_markdown(contact_sheet(tiles, gap=16), [str(row["image_id"]) for row in worst])


def worst_findings(findings: pd.DataFrame, count: int) -> list[dict[str, object]]:
    """Return the worst ``model_findings`` of every kind in turns, so many at most."""
    turns = findings.assign(turn=findings.groupby("kind").cumcount())
    return records(turns.sort_values(["turn", "rank"], kind="stable").head(count))


def finding_title(row: Mapping[str, object]) -> str:
    """Return what a finding says in a few words, with the score of a wrong box."""
    score = row["score"]
    sure = f" at {score:.2f}" if isinstance(score, float) and not math.isnan(score) else ""
    return f"{row['kind']}: {row['class_name']}{sure}"


def error_images(
    rows: Iterable[Mapping[str, Any]],
    truth: pd.DataFrame,
    load: Callable[[str, str], bytes],
    *,
    side: int,
) -> Iterator[Image.Image]:
    """Yield each finding cut out with as much again around it: true boxes green, itself red."""
    extensions = dict(zip(truth["image_id"], truth["extension"], strict=True))
    colors = {"true": "#2ca02c", "found": "#d62728"}
    for row in rows:
        pixels = decode(load(row["image_id"], extensions[row["image_id"]]))
        own = truth.loc[truth["image_id"] == row["image_id"], BOX_COLUMNS].dropna()
        boxes = pd.concat([own.assign(class_name="true"), pd.DataFrame([row])[BOX_COLUMNS]])
        boxes["class_name"] = boxes["class_name"].fillna("found")
        cut, boxes = _cut_out(pixels, boxes)
        yield thumbnail(cut, boxes, colors, side=side)


def _cut_out(pixels: Pixels, boxes: pd.DataFrame) -> tuple[Pixels, pd.DataFrame]:
    """Return the place around the last of the boxes, and the boxes in it."""
    x1, y1, x2, y2 = (float(value) for value in boxes[BOX_COLUMNS].iloc[-1])
    height, width = pixels.shape[:2]
    reach = max(x2 - x1, y2 - y1, 32.0) / 2
    left, top = max(0, int(x1 - reach)), max(0, int(y1 - reach))
    right, bottom = min(width, int(x2 + reach) + 1), min(height, int(y2 + reach) + 1)
    moved = boxes.assign(**{name: boxes[name] - left for name in ("x1", "x2")})
    moved = moved.assign(**{name: boxes[name] - top for name in ("y1", "y2")})
    return pixels[top:bottom, left:right], moved


def _captioned(image: Image.Image, lines: Sequence[str], *, width: int) -> Image.Image:
    """Return the image in the middle of a framed field of fixed size, the lines under it."""
    height = width * 3 // 4
    image = ImageOps.contain(image, (width, height)) if image.height > height else image
    font = ImageFont.load_default(_LEGEND_SIZE)
    tile = Image.new("RGB", (width, height + 15 * 5), "white")
    tile.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    pen = ImageDraw.Draw(tile)
    pen.rectangle((0, 0, width - 1, height - 1), outline="#bbbbbb")
    wrapped = [part for line in lines for part in textwrap.wrap(line, width // 8)[:3]]
    for place, text in enumerate(wrapped[:5]):
        plain = text.encode("ascii", "replace").decode()
        pen.text((0, height + 2 + 14 * place), plain, fill="#333333", font=font)
    return tile


def _with_legend(
    sheet: Image.Image, colors: Mapping[str, str], counts: Mapping[str, int]
) -> Image.Image:
    """Return the sheet and a line under it: the classes in it, in their colours, counted."""
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
    """Return the sheet as a data URI, at the best JPEG quality that keeps it under the limit.

    Its text names the images ``shown``, for whoever cannot see it, and for an erasure.
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
    """Return a text without the images in it that show one of these images.

    ``text`` may be Markdown, or JSON that holds it. Images that do not say what they show, as
    earlier code made them, go too.
    """
    begin = {image[:SHORT_ID] for image in images}

    def kept(match: re.Match[str]) -> str:
        names = match["names"]
        is_other = names is not None and begin.isdisjoint(names.split(", "))
        return match[0] if is_other else "*An erasure took these images. Materialise it anew.*"

    return _IMAGES.sub(kept, text)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    text = "–" if value is None or value is pd.NA or value is pd.NaT else str(value)
    text = _DIGEST.sub(lambda found: found.group()[:10], text)
    text = text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
    for mark in "\\`*_{}[]<>()#|!":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
