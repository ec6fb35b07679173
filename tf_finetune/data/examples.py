"""Labelled texts, of which only numbers are in memory."""

import dataclasses
import hashlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.data.strings import Strings


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Texts and what is known of each.

    Attributes:
        texts: on disk as `Strings`, or a list of a few.
        labels: int64 [examples] classes, float32 [examples] numbers, or float32 [examples, num_labels] of 0 and 1.
        text_pairs: the second texts; None for single texts.
        weights: float32 [examples], how much each counts in training; None means all the same.
        places: the file and line of each.
        slices: what each has in the columns that results are broken down by, in the order of their names; None where
            there are no such columns.
        rows_key: stands for the rows on disk that these are some of; "" for texts that are not on disk.
    """

    texts: Sequence[str]
    labels: np.ndarray
    text_pairs: Sequence[str] | None = None
    weights: np.ndarray | None = None
    places: Sequence[str] | None = None
    slices: Sequence[Sequence[str]] | None = None
    rows_key: str = ""

    def __len__(self) -> int:
        return len(self.texts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Examples):
            return NotImplemented
        mine, theirs = ((e.texts, e.text_pairs, e.places, e.slices) for e in (self, other))
        return mine == theirs and np.array_equal(self.labels, other.labels) and _same(self.weights, other.weights)

    __hash__ = None

    @classmethod
    def unlabelled(cls, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> "Examples":
        """Texts to be answered for; their label is 0."""
        return cls(texts, np.zeros(len(texts), np.int64), text_pairs)

    def take(self, positions: np.ndarray) -> "Examples":
        """Those at these positions, in this order; their texts stay on disk."""
        return dataclasses.replace(
            self,
            texts=_taken(self.texts, positions),
            labels=self.labels[positions],
            text_pairs=_taken(self.text_pairs, positions),
            weights=None if self.weights is None else self.weights[positions],
            places=_taken(self.places, positions),
            slices=_taken(self.slices, positions),
        )

    def drawn(self, count: int, seed: int) -> "Examples":
        """So many of them, drawn by seed; all, in their order, where there are no more."""
        if count >= len(self):
            return self
        return self.take(np.array(random.Random(seed).sample(range(len(self)), count)))

    def key(self) -> str:
        """Stands for these rows in this order; "" where they are not on disk."""
        if not self.rows_key or not isinstance(self.texts, Strings):
            return ""
        return f"{self.rows_key}/{hashlib.sha256(self.texts.indices.tobytes()).hexdigest()}"


def _taken(column: Sequence[Any] | None, positions: np.ndarray) -> Sequence[Any] | None:
    if column is None or isinstance(column, Strings):
        return column if column is None else column.take(positions)
    return [column[position] for position in positions]


def _same(mine: Any, theirs: Any) -> bool:
    return mine is theirs or (mine is not None and theirs is not None and np.array_equal(mine, theirs))
