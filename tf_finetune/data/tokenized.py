"""Texts as token ids, tokenised once for all epochs and all runs, and memory-mapped."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa

from tf_finetune.data import cache, fingerprint
from tf_finetune.data.examples import Examples
from tf_finetune.data.store import numbers_of
from tf_finetune.errors import InputError

# Texts tokenised at once: enough for all cores, and a few megabytes in memory.
PIECE = 4096
# Fewer texts than this are tokenised in half a second, in memory.
FEWEST_ON_DISK = 4096
FILE = "tokens.arrow"

# Texts and their second texts (or None) -> the ids of each, and how many of them are of type 0 (or None).
Encode = Callable[[Sequence[str], Sequence[str] | None], tuple[list[list[int]], list[int] | None]]


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

    def joined(self, others: "TokenizedExamples") -> "TokenizedExamples":
        """These and then the others, all in memory; of weights that only one side has the other side's are 1.

        Raises:
            InputError: single texts and pairs, or labels of different kinds.
        """
        if (self.first_lengths is None) != (others.first_lengths is None):
            expected, got = ("pairs" if one.first_lengths is not None else "single texts" for one in (self, others))
            raise InputError("single texts and pairs do not mix", where="data.replay", expected=expected, got=got)
        if self.labels.dtype != others.labels.dtype or self.labels.shape[1:] != others.labels.shape[1:]:
            expected, got = (f"{one.labels.dtype} {one.labels.shape[1:]}" for one in (self, others))
            raise InputError("labels of two kinds do not mix", where="data.replay", expected=expected, got=got)
        both = self, others
        weights = [np.ones(len(one), np.float32) if one.weights is None else one.weights for one in both]
        lengths = np.concatenate([one.lengths for one in both])
        return TokenizedExamples(
            token_ids=np.concatenate([one.gather(np.arange(len(one))) for one in both]),
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            labels=np.concatenate([one.labels for one in both]),
            weights=None if self.weights is None and others.weights is None else np.concatenate(weights),
            first_lengths=None if self.first_lengths is None else np.concatenate([one.first_lengths for one in both]),
        )

    def digest(self) -> str:
        """The sha256 of all that training sees of the examples, whether they lie in memory or in a file."""
        sha256 = hashlib.sha256()
        for array in (self.lengths, self.labels, self.weights, self.first_lengths):
            sha256.update(b"none" if array is None else f"{array.dtype} {array.shape} ".encode() + array.tobytes())
        for start in range(0, len(self), PIECE):
            sha256.update(self.gather(np.arange(start, min(start + PIECE, len(self)))).tobytes())
        return sha256.hexdigest()

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """The ids of these examples end to end: int32 [sum of `lengths[indices]`]."""
        lengths = self.lengths[indices]
        ends = np.cumsum(lengths)
        shifts = np.repeat(self.starts[indices] - (ends - lengths), lengths)
        return self.token_ids[shifts + np.arange(len(shifts))]


def tokenized(examples: Examples, encode: Encode, *, key: str) -> TokenizedExamples:
    """The examples as token ids. Those of many texts on disk are kept on disk, and `encode` is called once for all.

    Args:
        examples: the texts.
        encode: tokenises some.
        key: stands for all that `encode` does: the tokenizer, how long its texts become, its library's version.
    """
    rows_key = examples.key()
    if not rows_key or len(examples) < FEWEST_ON_DISK:
        token_ids, first_lengths = encode(examples.texts, examples.text_pairs)
        return TokenizedExamples.from_lists(
            token_ids, examples.labels, weights=examples.weights, first_lengths=first_lengths
        )

    def build(folder: Path) -> dict[str, int]:
        _write(folder / FILE, examples, encode)
        return {"examples": len(examples)}

    versions = {name: metadata.version(name) for name in ("datasets", "pyarrow")}
    kept = cache.key_of(kind="tokens", rows=rows_key, encode=key, code=fingerprint.code(), versions=versions)
    folder, _ = cache.kept(kept, build, what=f"tokens of {len(examples)} texts")
    return _mapped(folder / FILE, examples)


def _write(path: Path, examples: Examples, encode: Encode) -> None:
    import datasets
    from datasets.arrow_writer import ArrowWriter

    features = datasets.Features(input_ids=datasets.List(datasets.Value("int32")), first_length=datasets.Value("int32"))
    schema = features.arrow_schema
    with cache.writing():
        writer = ArrowWriter(features=features, path=str(path))
    try:
        for start in range(0, len(examples), PIECE):
            token_ids, first_lengths = encode(*_piece(examples, start))
            columns = [token_ids, first_lengths or [0] * len(token_ids)]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            with cache.writing():
                writer.write_table(pa.table(arrays, schema=schema), writer_batch_size=PIECE)
        with cache.writing():
            writer.finalize()
    finally:
        with contextlib.suppress(OSError):
            writer.close()


def _piece(examples: Examples, start: int) -> tuple[list[str], list[str] | None]:
    texts, pairs = examples.texts[start : start + PIECE], examples.text_pairs
    return list(texts), None if pairs is None else list(pairs[start : start + PIECE])


def _mapped(path: Path, examples: Examples) -> TokenizedExamples:
    """The tokens on disk, none of them read yet.

    The Arrow format puts the ids of each piece at a multiple of eight bytes, so that the whole file can be seen as
    one array of int32 in which every text has its start.
    """
    with pa.memory_map(str(path)) as file:
        content = file.read_buffer()
    table = pa.ipc.open_stream(content).read_all()
    starts, lengths = [], []
    for piece in table["input_ids"].chunks:
        offsets = numbers_of(piece.offsets, np.int32).astype(np.int64)
        starts.append((piece.values.buffers()[1].address - content.address) // 4 + offsets[:-1])
        lengths.append(np.diff(offsets))
    first_lengths = [numbers_of(piece, np.int32) for piece in table["first_length"].chunks]
    return TokenizedExamples(
        token_ids=np.frombuffer(content, np.int32, count=content.size // 4),
        starts=np.concatenate(starts),
        lengths=np.concatenate(lengths),
        labels=_labels(examples.labels),
        weights=examples.weights,
        first_lengths=None if examples.text_pairs is None else np.concatenate(first_lengths).astype(np.int64),
    )


def _labels(labels: Sequence | np.ndarray) -> np.ndarray:
    """int32 classes, or float32 numbers."""
    array = np.asarray(labels)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
