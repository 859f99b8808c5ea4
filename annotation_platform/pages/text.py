"""Text chosen by users, made safe to show: on one line, of limited length."""

import re
import unicodedata

# Some scripts need joiners; other invisible characters are left out.
_JOINERS = "\u200c\u200d"
_MARKUP = re.compile(r"([\\`*\[\]<>|&~!$#])")
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def shown(text: str, most: int = 200) -> str:
    """Return ``text`` on one line, without invisible characters, cut to ``most`` columns."""
    visible = "".join(each if each.isprintable() or each in _JOINERS else " " for each in text)
    line = " ".join(visible.split())
    width = 0
    for end, letter in enumerate(line):
        width += _columns(letter)
        if width > most:
            return line[:end].rstrip() + "…"
    return line


def markdown(text: str, most: int = 200) -> str:
    """Return ``text`` as Markdown that shows it literally, also in a table cell."""
    return _EMPHASIS.sub(r"\_", _MARKUP.sub(r"\\\1", shown(text, most)))


def compact(number: float) -> str:
    """Return a count in short form: 950, 1.2k, 34k, 5.6M."""
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
