"""One file of labelled text: csv, tsv, jsonl and parquet tables, gzipped or not, read row by row."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune.errors import InputError
from tf_finetune.readers import delimited
from tf_finetune.readers.opening import GZIP, opened_text
from tf_finetune.readers.rows import (
    Columns,
    OnFault,
    Row,
    check_columns,
    no_such_column,
    not_utf8,
    refuse,
    row_of,
    text_of,
)

if TYPE_CHECKING:
    import pyarrow

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
# Rows of a parquet file that are in memory at a time.
PARQUET_BATCH = 4096

# Where a row stands ("FILE line 3"), and the values of the columns asked for.
Cells = tuple[str, Sequence[object]]


def is_table(name: str | Path) -> bool:
    """Whether a file of this name is read as a table."""
    return _kind(Path(name)) in KINDS


def table_stem(path: Path) -> str:
    """The file's name without what tells its kind: `train` of `train.csv.gz`."""
    return Path(path.stem).stem if path.suffix.lower() == GZIP else path.stem


def rows(path: Path, columns: Columns, on_fault: OnFault) -> Iterator[Row]:
    """The rows of a table, as they are needed.

    Args:
        path: of a kind in KINDS, gzipped or not.
        columns: the columns to read.
        on_fault: what to do about a row whose text, label or weight is not usable, or that is malformed; the next
            row follows where it returns.

    Raises:
        InputError: unknown kind, no such column, or a fault of the whole file.
    """
    for where, values in _cells(path, columns.names, on_fault):
        try:
            row = row_of(columns, values, where)
        except InputError as error:
            on_fault(error)
            continue
        yield row


def texts(path: Path, text_column: str) -> Iterator[str]:
    """Texts without labels: a column of a table, or the lines of any other file, gzipped or not.

    Raises:
        InputError: a table has no such column, or the file has a fault.
    """
    if is_table(path):
        yield from (text_of(text, where) for where, (text,) in _cells(path, (text_column,), refuse))
        return
    with opened_text(path) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace")
        yield from (line.rstrip("\n") for line in lines)


def pairs(path: Path, text_column: str, text_pair_column: str) -> Iterator[tuple[str, str]]:
    """Pairs of texts without labels: two columns of a table, or lines of any other file with a tab between the two.

    Raises:
        InputError: a table has no such column, a line not one tab, or the file has a fault.
    """
    if is_table(path):
        for where, values in _cells(path, (text_column, text_pair_column), refuse):
            yield text_of(values[0], where), text_of(values[1], where)
        return
    for number, line in enumerate(texts(path, text_column), 1):
        yield pair_of(line, f"{path} line {number}")


def pair_of(line: str, where: object) -> tuple[str, str]:
    """The two texts of a line.

    Raises:
        InputError: there is not one tab between two.
    """
    parts = line.split("\t")
    if len(parts) != 2:
        got = f"{len(parts) - 1} tabs"
        raise InputError("not a pair of texts", where=where, expected="two texts with a tab between", got=got)
    return parts[0], parts[1]


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] == GZIP and suffixes[-2] != ".parquet":
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def _cells(path: Path, names: Sequence[str], on_fault: OnFault) -> Iterator[Cells]:
    kind = _kind(path)
    if kind in DELIMITERS:
        return delimited.cells(path, names, on_fault, delimiter=DELIMITERS[kind])
    if kind in (".jsonl", ".ndjson"):
        return _json_lines(path, names, on_fault)
    if kind == ".parquet":
        return _parquet(path, names)
    expected = f"one of {', '.join(KINDS)}, and {GZIP} of all but parquet"
    raise InputError("unknown kind of data file", where=path, expected=expected)


def _json_lines(path: Path, names: Sequence[str], on_fault: OnFault) -> Iterator[Cells]:
    """An object a line; the keys of the first are the columns."""
    first, empty, prefix = True, True, f"{path} line "
    with opened_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            where, empty = prefix + str(number), False
            try:
                content = _json_object(line, where)
            except InputError as error:
                on_fault(error)
                continue
            if first:
                check_columns(names, list(content), path)
                first = False
            yield where, [content.get(name) for name in names]
    if empty:
        raise no_such_column(names[0], path, ())


def _json_object(line: bytes, where: str) -> dict[str, object]:
    try:
        text = line.decode("utf-8-sig" if line.startswith(b"\xef") else "utf-8")
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


def _parquet(path: Path, names: Sequence[str]) -> Iterator[Cells]:
    import pyarrow
    from pyarrow import parquet

    number, prefix = 0, f"{path} row "
    try:
        with parquet.ParquetFile(path, buffer_size=2**20) as file:  # else a row group's column is read whole
            check_columns(names, file.schema_arrow.names, path)
            for batch in file.iter_batches(PARQUET_BATCH, columns=list(dict.fromkeys(names))):
                for values in zip(*(_values(batch.column(name), path, number) for name in names), strict=True):
                    number += 1
                    yield prefix + str(number), values
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError("unreadable parquet file", where=path, got=str(error).partition("\n")[0]) from None


def _values(column: "pyarrow.Array", path: Path, number: int) -> list[object]:
    """A batch of a column; as bytes where a text in it is not UTF-8, so that its row can be told."""
    import pyarrow

    try:
        return column.to_pylist()
    except UnicodeDecodeError as error:
        if column.type not in (pyarrow.string(), pyarrow.large_string()):
            raise not_utf8(error, f"{path} after row {number}") from None
        return column.cast(pyarrow.large_binary()).to_pylist()
