"""Names that anybody may have chosen, made fit to be shown: on one line, of a bearable length."""

import re
import unicodedata

# A joiner is part of how some scripts are written; whatever else cannot be seen is left out.
_JOINERS = "\u200c\u200d"
_MARKUP = re.compile(r"([\\`*\[\]<>|&~!$#])")
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def shown(text: str, most: int = 200) -> str:
    """Return ``text`` on one line, without invisible characters, cut to ``most`` columns."""
    seen = "".join(each if each.isprintable() or each in _JOINERS else " " for each in text)
    seen = " ".join(seen.split())
    width = 0
    kept: list[str] = []
    for each in seen:
        width += _columns(each)
        if width > most:
            return "".join(kept).rstrip() + "…"
        kept.append(each)
    return seen


def markdown(text: str, most: int = 200) -> str:
    """Return ``text`` as Markdown that shows it as it is, in a cell of a table too."""
    return _EMPHASIS.sub(r"\_", _MARKUP.sub(r"\\\1", shown(text, most)))


def compact(number: float) -> str:
    """Return a count in few letters: 950, 1.2k, 34k, 5.6M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            value = number / size
            return (
                f"{value:.1f}".removesuffix(".0") + letter if value < 10 else f"{value:.0f}{letter}"
            )
    return f"{number:g}"


def _columns(letter: str) -> int:
    if unicodedata.combining(letter) or letter in _JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
