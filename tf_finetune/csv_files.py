"""csv files that are safe to open in a spreadsheet, whatever the texts in them say."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tf_finetune import json_files

# What makes a spreadsheet take a cell for a formula (https://owasp.org/www-community/attacks/CSV_Injection), behind
# white space, too, which some take away first; and the same signs in full width, which East Asian ones read alike.
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r]")
# The same behind what may part cells: semicolons do where the comma parts units from tenths.
PARTED = re.compile(r"([;|\t\n]\s*)([=+\-@＝＋－＠])")
# Controls but tab and line feed, marks that turn the order of letters round, other ends of lines, a byte order mark
# and halves of a character, which UTF-8 cannot say.
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def safe_cell(text: str) -> str:
    """The text as a cell that no spreadsheet computes, and in which nothing is hidden.

    A single quote goes before what would be a formula, and inside of a cell before what would be one for a spreadsheet
    that takes another sign than the comma to part cells, and so does not see the quotes around this one. Invisible
    characters are written as Python escapes them (`\\x00`, `\\u202e`); tabs and ends of lines stay, the latter as line
    feeds.
    """
    visible = PARTED.sub(r"\1'\2", INVISIBLE.sub(_escaped, text.replace("\r\n", "\n")))
    return f"'{visible}" if FORMULA.match(text) or FORMULA.match(visible) else visible


def _escaped(match: re.Match) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> None:
    """Writes the file whole, every text quoted and safe (`safe_cell`), numbers as they are.

    It is UTF-8 with the mark by which Excel knows it; our own reader and Python's `utf-8-sig` take that away.
    """
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in row])
    json_files.write_text(path, "\ufeff" + text.getvalue())
