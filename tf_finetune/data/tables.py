"""One file of labelled text: csv, tsv, jsonl and parquet tables, gzipped or not."""

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tf_finetune.data.rows import Row, label_of, no_such_column, not_utf8, text_of
from tf_finetune.errors import InputError

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
GZIP = ".gz"
DELIMITERS = {".csv": (",", "commas"), ".tsv": ("\t", "tabs")}

# Where a row stands ("FILE line 3"), and the values of the columns asked for.
Cells = tuple[str, Sequence[object]]


def is_table(name: str | Path) -> bool:
    """Whether a file of this name is read as a table."""
    return _kind(Path(name)) in KINDS


def table_stem(path: Path) -> str:
    """The file's name without what tells its kind: `train` of `train.csv.gz`."""
    return Path(path.stem).stem if path.suffix.lower() == GZIP else path.stem


def rows(path: Path, text_column: str, label_column: str) -> Iterator[Row]:
    """The texts and labels of a table.

    Raises:
        InputError: unknown kind, no such column, a text or label missing, a fault in the file.
    """
    for where, (text, label) in _cells(path, (text_column, label_column)):
        yield text_of(text, where), label_of(label, where)


def texts(path: Path, text_column: str) -> Iterator[str]:
    """Texts without labels: a column of a table, or the lines of any other file, gzipped or not.

    Raises:
        InputError: a table has no such column, or the file has a fault.
    """
    if is_table(path):
        yield from (text_of(text, where) for where, (text,) in _cells(path, (text_column,)))
        return
    with _opened(path) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace")
        yield from (line.rstrip("\n") for line in lines)


def read_text(path: Path) -> str:
    """A file's text with its line ends as they are, without a byte order mark.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    with _opened(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b".").splitlines())
        raise not_utf8(error, f"{path} line {line}") from None


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] == GZIP and suffixes[-2] != ".parquet":
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked; what goes wrong while they are read is an InputError."""
    try:
        with gzip.open(path) if path.suffix.lower() == GZIP else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("unreadable file", where=path, got=str(error)) from None


def _cells(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    kind = _kind(path)
    if kind in DELIMITERS:
        return _delimited(path, columns, *DELIMITERS[kind])
    if kind in (".jsonl", ".ndjson"):
        return _json_lines(path, columns)
    if kind == ".parquet":
        return _parquet(path, columns)
    expected = f"one of {', '.join(KINDS)}, and {GZIP} of all but parquet"
    raise InputError("unknown kind of data file", where=path, expected=expected)


def _delimited(path: Path, columns: tuple[str, ...], delimiter: str, delimiters: str) -> Iterator[Cells]:
    """The rows under a header line, read strictly: a fault names its line."""
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the module's 128 KiB
    lines = io.StringIO(read_text(path), newline="")
    if delimiter == "\t":  # has no quoting (IANA text/tab-separated-values): a review may begin with a quote
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        hint = f" and {delimiters} between columns" if len(header) == 1 and set(header[0]) & set(",;\t") else ""
        for column in columns:
            if column not in header:
                raise no_such_column(column, path, header, hint=hint)
        positions = [header.index(column) for column in columns]
        for row in filter(None, reader):
            where = f"{path} line {reader.line_num}"
            if len(row) != len(header):
                raise InputError("wrong number of columns", where=where, expected=len(header), got=len(row))
            yield where, [row[position] for position in positions]
    except csv.Error as error:
        raise InputError("malformed table", where=f"{path} line {reader.line_num}", got=str(error)) from None


def _json_lines(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    """An object a line; the keys of the first are the columns."""
    first = True
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            content = _json_object(line, where)
            for column in columns if first else ():
                if column not in content:
                    raise no_such_column(column, path, content)
            first = False
            yield where, [content.get(column) for column in columns]
    if first:
        raise no_such_column(columns[0], path, ())


def _json_object(line: bytes, where: str) -> dict[str, object]:
    try:
        text = line.decode("utf-8-sig")
        content = json.loads(text)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, where) from None
    except UnicodeEncodeError:
        raise InputError("text is not Unicode", where=where, got="half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        got = str(error) if line.lstrip().startswith(b"{") else repr(text.strip()[:40])
        raise InputError("not a JSON object", where=where, expected="an object a line", got=got) from None
    if not isinstance(content, dict):
        raise InputError("not a JSON object", where=where, expected="an object a line", got=repr(content)[:60])
    return content


def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for column in columns:
                if column not in names:
                    raise no_such_column(column, path, names)
            for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
                for values in zip(*(batch.column(column).to_pylist() for column in columns), strict=True):
                    number += 1
                    yield f"{path} row {number}", values
    except UnicodeDecodeError as error:
        raise not_utf8(error, f"{path} after row {number}") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError("unreadable parquet file", where=path, got=str(error).partition("\n")[0]) from None
