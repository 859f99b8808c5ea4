"""Small pictures and tables for the Dagster UI: Markdown, never more than 100 kB together."""

import base64
import io
import math
from collections.abc import Callable, Sequence

import pandas as pd
from PIL import Image, ImageDraw

from annotation_platform.images.decoding import Pixels, decode
from annotation_platform.schema.geometry import BOX_COLUMNS

_LIMIT = 90_000
_PALETTE = ["#e6550d", "#3182bd", "#31a354", "#756bb1", "#d6a800", "#d6336c", "#0b7285", "#5c5f66"]


def class_colors(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each class, by its position; eight, then over again."""
    return {name: _PALETTE[position % len(_PALETTE)] for position, name in enumerate(names)}


def table_preview(frame: pd.DataFrame, *, rows: int = 8, columns: Sequence[str] = ()) -> str:
    """Return the first rows as a Markdown table; long values are cut, markup is defused."""
    shown = frame[list(columns)] if columns else frame
    head = "| " + " | ".join(map(_cell, shown.columns)) + " |"
    rule = "|" + " --- |" * len(shown.columns)
    body = ["| " + " | ".join(map(_cell, row)) + " |" for row in shown.head(rows).to_numpy()]
    more = len(shown) - rows
    return "\n".join([head, rule, *body, *([f"\n… and {more} more rows"] if more > 0 else [])])


def thumbnail(
    pixels: Pixels, boxes: pd.DataFrame, colors: dict[str, str], *, side: int
) -> Image.Image:
    """Return the picture within ``side`` × ``side`` pixels with its boxes drawn on it."""
    picture = Image.fromarray(pixels)
    scale = min(side / picture.width, side / picture.height, 1.0)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    for row in boxes.to_dict("records"):
        corners = [float(row[name]) * scale for name in BOX_COLUMNS]
        color = colors.get(str(row["class_name"]), "#ffffff")
        pen.rectangle(corners, outline=color, width=2)
    return picture


def contact_sheet(
    pictures: Sequence[Image.Image], *, columns: int = 4, gap: int = 4
) -> Image.Image:
    """Return the pictures side by side on white, row by row; none give one white pixel."""
    if not pictures:
        return Image.new("RGB", (1, 1), "white")
    columns = min(columns, len(pictures))
    width = max(picture.width for picture in pictures) + gap
    height = max(picture.height for picture in pictures) + gap
    lines = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width - gap, lines * height - gap), "white")
    for position, picture in enumerate(pictures):
        left, top = position % columns * width, position // columns * height
        sheet.paste(picture, (left, top))
    return sheet


def boxes_preview(
    images: pd.DataFrame,
    labels: pd.DataFrame,
    load: Callable[[str, str], bytes],
    classes: Sequence[str],
    *,
    count: int = 8,
    side: int = 200,
) -> str:
    """Return Markdown with thumbnails of the first ``count`` images and their boxes.

    Args:
        images: rows with ``image_id`` and ``extension``.
        labels: rows with ``image_id``, ``class_name`` and box columns; rows without a box are
            left out.
        load: gives the bytes of a picture for its id and extension.
        classes: class names in the order that gives them their colours.
        count: how many pictures.
        side: pixels of a thumbnail's longer side.
    """
    colors = class_colors(classes)
    drawn = labels.dropna(subset=["x1"])
    pictures = []
    for image_id, extension in (
        images[["image_id", "extension"]].head(count).itertuples(index=False)
    ):
        boxes = drawn[drawn["image_id"] == image_id]
        pictures.append(thumbnail(decode(load(image_id, extension)), boxes, colors, side=side))
    counts = drawn["class_name"].value_counts()
    legend = " · ".join(f"{name}: {counts.get(name, 0)}" for name in classes)
    return f"{_as_markdown(contact_sheet(pictures))}\n\n{legend}"


def _as_markdown(sheet: Image.Image) -> str:
    """Return the sheet as a data URI, at the best JPEG quality that keeps it under the limit."""
    for quality in (85, 75, 60, 45, 30, 15):
        sink = io.BytesIO()
        sheet.save(sink, format="JPEG", quality=quality)
        if sink.tell() * 4 // 3 < _LIMIT:
            break
    else:
        return _as_markdown(sheet.resize((sheet.width // 2, sheet.height // 2)))
    encoded = base64.b64encode(sink.getvalue()).decode()
    return f"![pictures with their boxes](data:image/jpeg;base64,{encoded})"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    text = "–" if value is None or value is pd.NA or value is pd.NaT else str(value)
    text = text if len(text) <= 28 else text[:12] + "…" + text[-12:]
    for mark in "\\`*_{}[]<>()#|!":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
