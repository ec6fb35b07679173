"""The rows of a csv or tsv file, one at a time, each with its line; a row that is malformed costs no other row."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_finetune.errors import InputError
from tf_finetune.readers.opening import opened_text
from tf_finetune.readers.rows import OnFault, check_columns

# What a quoted text may have at most. A quote that is never closed makes the rest of the file one text, which is
# given up here instead of in memory.
LONGEST_TEXT = 2**24
# What csv.reader says in strict mode where the file ends inside quotes.
END_INSIDE_QUOTES = "unexpected end of data"


def cells(path: Path, names: Sequence[str], on_fault: OnFault, *, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Where each row begins ("FILE line 3") and its cells of the columns asked for.

    Commas may be quoted, strictly: nothing but a comma or a line's end stands behind a closing quote. tsv has no
    quoting (IANA text/tab-separated-values): a text may begin with a quote. After a fault in the quoting, reading goes
    on with the line behind the one where the quote was opened, so rows that a stray quote had taken in are given; the
    later lines of a row that really had several may then be reported, too.

    Args:
        path: gzipped or not.
        names: of the columns.
        on_fault: what to do about a row of another number of cells, badly quoted or not UTF-8.
        delimiter: a comma or a tab.

    Raises:
        InputError: no such column, or the file has a fault.
    """
    csv.field_size_limit(LONGEST_TEXT)
    quoting = {"quoting": csv.QUOTE_NONE} if delimiter == "\t" else {"strict": True}
    with opened_text(path) as file:
        # Bytes that are no UTF-8 become lone surrogates, which UTF-8 cannot say: so the row is known that has them.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        lines = _Lines(text)
        reader = csv.reader(lines, delimiter=delimiter, **quoting)
        header = _header(reader, path)
        check_columns(names, header, path, hint=_hint(header, delimiter))
        positions, width, prefix = [header.index(name) for name in names], len(header), f"{path} line "
        while True:
            begins = lines.next_row()
            try:
                row = next(reader, None)
            except csv.Error as error:
                on_fault(_malformed(error, lines, path))
                continue
            if row is None:
                return
            where = prefix + str(begins)
            if len(row) == width:
                values = [row[position] for position in positions]
                fault = None if all(map(str.isascii, values)) else _not_utf8(values, where)
                if fault is None:
                    yield where, values
                    continue
            elif not row:  # an empty line
                continue
            else:
                fault = _wrong_width(where, lines, expected=width, got=len(row))
            on_fault(fault)


class _Lines:
    """A file's lines by number, those of the newest row kept, so that a fault can give them back."""

    def __init__(self, lines: io.TextIOBase):
        self._lines = lines
        self._again: list[str] = []
        self._number = 1  # of the row's first line
        self.row: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._lines)
        self.row.append(line)
        return line

    def next_row(self) -> int:
        """The number of the line that comes next."""
        self._number += len(self.row)
        self.row.clear()
        return self._number

    def reopen(self, *, closed: bool) -> int:
        """The number of the line where the faulty quote was opened; the lines behind it come again.

        Args:
            closed: whether the row's last line closed it, wrongly; else it is still open.
        """
        opened, inside = 0, False
        for index, line in enumerate(self.row[:-1] if closed else self.row):
            for _ in range(line.replace('""', "").count('"')):
                inside = not inside
                opened = index if inside else opened
        self._again += reversed(self.row[opened + 1 :])
        del self.row[opened + 1 :]
        return self._number + opened


def _header(reader: Iterator[list[str]], path: Path) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise InputError("malformed table", where=f"{path} line 1", got=str(error)) from None
    if fault := _not_utf8(header, f"{path} line 1"):
        raise fault
    return header


def _hint(header: list[str], delimiter: str) -> str:
    """What may be wrong where the header is a single name."""
    delimiters = "tabs" if delimiter == "\t" else "commas"
    return f" and {delimiters} between columns" if len(header) == 1 and set(header[0]) & set(",;\t") else ""


def _malformed(error: csv.Error, lines: _Lines, path: Path) -> InputError:
    """What is wrong with the quoting; the lines behind the faulty one come again."""
    read, got = len(lines.row), str(error)
    is_open = got == END_INSIDE_QUOTES or ("field limit" in got and read > 1)
    line = lines.reopen(closed=not is_open)
    if is_open:
        end = "the file's end" if got == END_INSIDE_QUOTES else f"{LONGEST_TEXT} characters without one"
        return InputError("a quote is not closed", where=f"{path} line {line}", expected='a closing "', got=end)
    if read > 1:
        got += f" {read - 1} lines further on: an unclosed quote, or one that is not doubled"
    return InputError("malformed table", where=f"{path} line {line}", got=got)


def _wrong_width(where: str, lines: _Lines, *, expected: int, got: int) -> InputError:
    several = f" in {len(lines.row)} lines, joined by a quote" if len(lines.row) > 1 else ""
    return InputError("wrong number of columns", where=where, expected=expected, got=f"{got}{several}")


def _not_utf8(values: Sequence[str], where: str) -> InputError | None:
    """The fault of a cell with a lone surrogate, which stands for a byte that is no UTF-8."""
    try:
        for value in values:
            value.encode()
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) - 0xDC00
        return InputError("text is not UTF-8", where=where, got=f"byte {byte:#04x}")
    return None
