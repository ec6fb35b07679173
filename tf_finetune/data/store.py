"""The rows of a source on disk: written once while they stream in, then memory-mapped.

One Arrow file a split, as `datasets` writes them (`datasets.Dataset.from_file` opens them). Reading them takes
pyarrow alone, so that a second start does without the second that importing `datasets` takes.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tf_finetune.data import cache
from tf_finetune.data.strings import Strings
from tf_finetune.errors import InputError
from tf_finetune.readers.rows import Found, Row, refuse
from tf_finetune.readers.text_hash import sha256_of, tenth_of

# A piece of the file, and what is in memory while it is written.
PIECE_ROWS, PIECE_CHARACTERS = 8192, 2**24


class Rows:
    """The rows of one split on disk.

    Args:
        path: of its file.
        key: stands for the content.
    """

    def __init__(self, path: Path, key: str):
        self.key = key
        self.table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()

    def __len__(self) -> int:
        return len(self.table)

    @functools.cached_property
    def hashes(self) -> np.ndarray:
        """uint64 [rows]: the first 64 bits of the text's sha256, in the order of the whole."""
        return self.numbers("hash", np.uint64)

    @functools.cached_property
    def tenths(self) -> np.ndarray:
        """uint8 [rows]: the text's sha256 modulo 10."""
        return self.numbers("tenth", np.uint8)

    def numbers(self, column: str, dtype: type) -> np.ndarray:
        """A column of numbers, in memory."""
        return np.concatenate([np.zeros(0, dtype), *(numbers_of(chunk, dtype) for chunk in self.table[column].chunks)])

    def strings(self, column: str, indices: np.ndarray) -> Strings:
        """These rows' `text`, `text_pair` or `where`; or `slices`, each a list of strings."""
        return Strings(self.table[column], indices)

    def place(self, index: int) -> str:
        """The file and line of a row, for messages."""
        return self.table["where"][int(index)].as_py()


def stored(
    key_of: Callable[[], str], read: Callable[[], Found], *, place: str
) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """The rows of a source by split, read only if they are not on disk, and its notes.

    Args:
        key_of: makes the key, which stands for the source's content and how it is read; called again after reading.
        read: finds the source's splits; they are read here.
        place: the source, for messages.

    Raises:
        InputError: whatever the readers raise, or the source changed meanwhile.
    """
    key = key_of()

    def build(folder: Path) -> dict[str, object]:
        found = read()
        for split, reader in found.splits.items():
            _write(folder / f"{split}.arrow", reader(refuse))
        if key_of() != key:
            raise InputError("the data changed while it was read", where=place, expected="to be run again")
        return {"splits": list(found.splits), "notes": list(found.notes), "place": place}

    folder, facts = cache.kept(key, build, what=f"rows of {place}")
    splits = {split: Rows(folder / f"{split}.arrow", f"{key}/{split}") for split in facts["splits"]}
    return splits, tuple(facts["notes"])


def numbers_of(array: pa.Array, dtype: type) -> np.ndarray:
    """The numbers of an array that misses none. (pyarrow's own `to_numpy` imports pandas, half a second.)"""
    if not len(array):
        return np.zeros(0, dtype)
    start = array.offset * np.dtype(dtype).itemsize
    return np.frombuffer(array.buffers()[1], dtype, count=len(array), offset=start)


def _write(path: Path, rows: Iterator[Row]) -> None:
    import datasets
    from datasets.arrow_writer import ArrowWriter

    string = datasets.Value("string")
    features = datasets.Features(
        text=string,
        text_pair=string,
        label=string,  # one of these two is null
        labels=datasets.List(string),
        weight=datasets.Value("float32"),
        where=string,
        slices=datasets.List(string),
        hash=datasets.Value("uint64"),
        tenth=datasets.Value("uint8"),
    )
    with cache.writing():
        writer = ArrowWriter(features=features, path=str(path))
    try:
        for piece in _pieces(rows):
            table = _table(piece, features.arrow_schema)
            with cache.writing():
                writer.write_table(table, writer_batch_size=len(table))
        with cache.writing():
            writer.finalize()
    finally:
        with contextlib.suppress(OSError):
            writer.close()


def _pieces(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows by the thousand, fewer where texts are long."""
    piece, characters = [], 0
    for row in rows:
        piece.append(row)
        characters += len(row.text) + len(row.text_pair or "")
        if len(piece) == PIECE_ROWS or characters >= PIECE_CHARACTERS:
            yield piece
            piece, characters = [], 0
    if piece:
        yield piece


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    texts, labels, pairs, weights, places, slices = zip(*rows, strict=True)
    digests = [sha256_of(text) for text in texts]
    columns = {
        "text": texts,
        "text_pair": pairs,
        "label": [label if isinstance(label, str) else None for label in labels],
        "labels": [None if isinstance(label, str) else label for label in labels],
        "weight": np.array(weights, np.float32),
        "where": places,
        "slices": slices,
        "hash": np.frombuffer(b"".join(digest[:8] for digest in digests), ">u8").astype(np.uint64),
        "tenth": np.array([tenth_of(digest) for digest in digests], np.uint8),
    }
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)
