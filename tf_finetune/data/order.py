"""Which example stands in which batch: pure functions of (lengths, options, seed, epoch). numpy only.

Three ways to cut an epoch into batches, in `training_order`: a fixed number of examples, each batch padded to its own
longest (the default); a budget of tokens a batch; and batches of few fixed shapes, for compilers that build anew for
every shape. In all of them every example stands exactly once, and a batch is known by its number alone: a run that
has done k steps of an epoch goes on with batch k.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

# Batches a window: wide enough that sorting inside it leaves little padding (under 3% at batches of up to 32),
# narrow enough that an epoch stays shuffled: texts meet others of their length by chance, batch by batch.
WINDOW_BATCHES = 50

# Lengths that batches are padded to at most where JAX computes and nobody says how many: it compiles for each.
NUM_SHAPES_OF_JAX = 4

# Stands for a row that is no example; it counts nothing.
PADDING = -1


@dataclasses.dataclass(frozen=True)
class BatchOrder:
    """The batches of one pass: batch i is `examples[starts[i]:starts[i + 1]]`, padded to `widths[i]` tokens.

    Attributes:
        examples: int64 [rows], every index exactly once, and PADDING where a row is none.
        starts: int64 [number of batches + 1].
        widths: int64 [number of batches].
    """

    examples: np.ndarray
    starts: np.ndarray
    widths: np.ndarray

    def __len__(self) -> int:
        return len(self.widths)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [number of batches], examples in each, padding rows left out."""
        return np.add.reduceat(self.examples != PADDING, self.starts[:-1], dtype=np.int64)

    @property
    def rows(self) -> np.ndarray:
        """int64 [number of batches], rows of each, padding rows included."""
        return np.diff(self.starts)

    @property
    def tokens(self) -> int:
        """Tokens computed in the whole pass, padding included."""
        return int(np.dot(self.rows, self.widths))

    def useful_tokens(self, lengths: np.ndarray) -> np.ndarray:
        """int64 [number of batches], tokens of the texts of each, padding left out.

        Args:
            lengths: int [number of examples], tokens of each.
        """
        of_rows = np.where(self.examples != PADDING, np.asarray(lengths)[self.examples], 0)
        return np.add.reduceat(of_rows, self.starts[:-1], dtype=np.int64)


def training_order(
    lengths: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    batch_tokens: int | None = None,
    shapes: Sequence[int] | None = None,
    rows_multiple_of: int = 1,
) -> BatchOrder:
    """Shuffled batches of texts of like length, drawn anew for each (seed, epoch).

    All examples are shuffled, cut into windows of about WINDOW_BATCHES batches, sorted by length inside each window
    and cut into batches; the windows, and the batches of each, are shuffled.

    Args:
        lengths: int [number of examples], tokens of each.
        batch_size: examples a batch; the remainder forms one smaller batch.
        seed: the run's seed.
        epoch: from 0.
        batch_tokens: takes the place of batch_size: as many examples as stay within so many tokens, padding
            included; a text longer than that is a batch of its own.
        shapes: ascending lengths, the last at least the longest text's. Batches are drawn from all texts of the
            same shape (no windows), and all of a shape have the same rows, the last filled up with PADDING.
        rows_multiple_of: devices that share each batch: it is filled up with PADDING to so many equal parts, also
            beyond batch_tokens, so that the examples of a batch are the same on any number of devices.
    """
    lengths = np.asarray(lengths)
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    if shapes is not None:
        batches, widths = _of_shapes(shuffled, lengths, shapes, batch_size=batch_size, batch_tokens=batch_tokens)
        drawn = random.permutation(len(batches))
        return _joined([batches[i] for i in drawn], widths[drawn], rows_multiple_of)
    window = WINDOW_BATCHES * (batch_size if batch_tokens is None else max(1, round(batch_tokens / lengths.mean())))
    ordered: list[np.ndarray] = []
    for start in window * random.permutation(-(-len(shuffled) // window)):
        part = shuffled[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        if batch_tokens is None:
            batches = [part[start : start + batch_size] for start in range(0, len(part), batch_size)]
        else:
            batches = _within_budget(part, lengths, batch_tokens)
        ordered += [batches[i] for i in random.permutation(len(batches))]
    widths = np.array([lengths[batch].max() for batch in ordered], dtype=np.int64)
    return _joined(ordered, widths, rows_multiple_of)


def evaluation_order(
    lengths: np.ndarray, *, batch_size: int, shapes: Sequence[int] | None = None, rows_multiple_of: int = 1
) -> BatchOrder:
    """All examples sorted by length, longest first, so that running out of memory shows at once.

    Args:
        lengths: int [number of examples], tokens of each.
        batch_size: examples a batch; the remainder forms one smaller batch.
        shapes: as for `training_order`; the last batch of each shape is then filled up with PADDING.
        rows_multiple_of: as for `training_order`.
    """
    lengths = np.asarray(lengths)
    ordered = np.argsort(-lengths, kind="stable")
    if shapes is not None:
        batches, widths = _of_shapes(ordered, lengths, shapes, batch_size=batch_size, batch_tokens=None)
        return _joined(batches[::-1], widths[::-1], rows_multiple_of)
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    widths = np.array([lengths[batch[0]] for batch in batches], dtype=np.int64)
    return _joined(batches, widths, rows_multiple_of)


def shape_set(lengths: np.ndarray, *, num_shapes: int, longest: int, multiple_of: int = 8) -> tuple[int, ...]:
    """The at most `num_shapes` lengths that pad the least when each text is padded to the next of them.

    Args:
        lengths: int [number of examples], tokens of each; at least one.
        num_shapes: how many lengths, 1 or more.
        longest: no length is beyond it, and no text.
        multiple_of: every length is a multiple of this, as tensor cores like it, unless it is `longest`.

    Returns:
        Ascending lengths; the last holds the longest text.
    """
    rounded = -(-np.asarray(lengths) // multiple_of)
    candidates, counts = np.unique(rounded, return_counts=True)
    texts = np.concatenate([[0], np.cumsum(counts)])
    # tokens[i]: the fewest for all texts of the first i candidates, in as many shapes as there were rounds.
    tokens = np.concatenate([[0.0], np.full(len(candidates), np.inf)])
    choices = []
    for _ in range(min(num_shapes, len(candidates))):
        # [i, j]: the last shape is candidate j - 1, and takes the texts from candidate i on.
        totals = tokens[:, np.newaxis] + (texts[np.newaxis, :] - texts[:, np.newaxis]) * np.concatenate(
            [[0], candidates]
        )
        totals[np.tril_indices(len(texts))] = np.inf
        choices.append(totals.argmin(axis=0))
        tokens = totals.min(axis=0)
    end, shapes = len(candidates), []
    for choice in reversed(choices):
        shapes.append(min(int(candidates[end - 1]) * multiple_of, longest))
        end = choice[end]
    return tuple(reversed(shapes))


def _within_budget(ordered: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Batches of examples in ascending order of length, each as large as the budget allows."""
    batches, start = [], 0
    while start < len(ordered):
        most = max(1, batch_tokens // lengths[ordered[start]])
        candidates = lengths[ordered[start : start + most]]
        rows = np.searchsorted(candidates * np.arange(1, len(candidates) + 1), batch_tokens, side="right")
        batches.append(ordered[start : start + max(1, rows)])
        start += len(batches[-1])
    return batches


def _of_shapes(
    ordered: np.ndarray, lengths: np.ndarray, shapes: Sequence[int], *, batch_size: int, batch_tokens: int | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Batches of one shape after the other, and the length of each."""
    shape_of = np.searchsorted(np.asarray(shapes), lengths[ordered])
    batches, widths = [], []
    for index, length in enumerate(shapes):
        rows = batch_size if batch_tokens is None else max(1, batch_tokens // length)
        members = ordered[shape_of == index]
        cut = [_filled(members[start : start + rows], rows) for start in range(0, len(members), rows)]
        batches += cut
        widths += [length] * len(cut)
    return batches, np.array(widths, dtype=np.int64)


def _filled(examples: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([examples, np.full(rows - len(examples), PADDING)])


def _joined(batches: list[np.ndarray], widths: np.ndarray, rows_multiple_of: int = 1) -> BatchOrder:
    batches = [_filled(batch, -(-len(batch) // rows_multiple_of) * rows_multiple_of) for batch in batches]
    starts = np.concatenate([[0], np.cumsum([len(batch) for batch in batches])])
    return BatchOrder(examples=np.concatenate(batches), starts=starts, widths=widths)
