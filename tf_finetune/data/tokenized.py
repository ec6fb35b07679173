"""Texts as token ids, tokenised once for all epochs."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class TokenizedExamples:
    """Token ids of every text, and what is known of each.

    The ids lie in one flat array, in memory or in a memory-mapped file; the rest is in memory.

    Attributes:
        token_ids: int32 [any]; example i is `token_ids[starts[i] : starts[i] + lengths[i]]`.
        starts: int64 [examples].
        lengths: int64 [examples], tokens of each, [CLS] and [SEP] included.
        labels: int32 [examples] classes, float32 [examples] numbers, or float32 [examples, num_labels] of 0 and 1.
        weights: float32 [examples], how much each counts; None means all the same.
        first_lengths: int64 [examples], tokens of type 0 of each pair, the rest being of type 1; None for single texts.
    """

    token_ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    first_lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_lists(
        cls,
        token_ids: Sequence[Sequence[int]],
        labels: Sequence | np.ndarray,
        *,
        weights: Sequence[float] | np.ndarray | None = None,
        first_lengths: Sequence[int] | None = None,
    ) -> "TokenizedExamples":
        """All in memory: for a handful of texts."""
        lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
        return cls(
            token_ids=np.fromiter((token for ids in token_ids for token in ids), dtype=np.int32),
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            labels=_labels(labels),
            weights=None if weights is None else np.asarray(weights, dtype=np.float32),
            first_lengths=None if first_lengths is None else np.asarray(first_lengths, dtype=np.int64),
        )

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """The ids of these examples end to end: int32 [sum of `lengths[indices]`]."""
        lengths = self.lengths[indices]
        ends = np.cumsum(lengths)
        shifts = np.repeat(self.starts[indices] - (ends - lengths), lengths)
        return self.token_ids[shifts + np.arange(len(shifts))]

    @property
    def input_ids(self) -> np.ndarray:
        """All ids end to end, in memory."""
        return self.gather(np.arange(len(self)))


def _labels(labels: Sequence | np.ndarray) -> np.ndarray:
    """int32 classes, or float32 numbers."""
    array = np.asarray(labels)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
