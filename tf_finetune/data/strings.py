"""A column of strings on disk that reads like a list."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa

# Rows looked up at once while iterating.
BLOCK = 1024


class Strings(Sequence[str]):
    """Some strings of a memory-mapped Arrow column, in any order; each is read when asked for.

    Equal to any sequence of the same strings.

    Args:
        column: of type string.
        indices: int64 [strings], which ones.
    """

    def __init__(self, column: pa.ChunkedArray, indices: np.ndarray):
        self._chunks = column.chunks
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Strings": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(index)
        return self._read(self.indices[[index]])[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self._read(self.indices[start : start + BLOCK])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        return f"<{len(self)} strings on disk>"

    def take(self, positions: np.ndarray | slice) -> "Strings":
        """Those at these positions."""
        strings = object.__new__(type(self))
        strings._chunks, strings._starts = self._chunks, self._starts
        strings.indices = self.indices[positions]
        return strings

    def _read(self, rows: np.ndarray) -> list[str]:
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        offsets = rows - self._starts[chunks]
        places = zip(chunks.tolist(), offsets.tolist(), strict=True)
        return [self._chunks[chunk][offset].as_py() for chunk, offset in places]
