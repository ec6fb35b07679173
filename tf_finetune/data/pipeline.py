"""Tokenised examples -> batches, as tf.data."""

import atexit
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune.data.order import PADDING, BatchOrder
from tf_finetune.data.tokenized import TokenizedExamples

if TYPE_CHECKING:
    import tensorflow as tf

# Batches fetched at once: Python is asked that seldom, and memory holds two such chunks of token ids.
CHUNK = 64
# Batches made ahead of the step that takes them.
PREFETCH = 4


class _Fetching:
    """Calls of Python from tf.data's threads, which Python has to wait for when it ends.

    A thread that is in Python then never comes out, and tf.data waits for its threads: without this, a process that is
    interrupted in the midst of an epoch may hang at its end.
    """

    def __init__(self):
        self.lock, self.is_over = threading.Lock(), False
        atexit.register(self.end)

    def chunk(
        self, examples: TokenizedExamples, order: BatchOrder, start: int, part: tuple[int, int]
    ) -> tuple[np.ndarray, ...]:
        with self.lock:
            if self.is_over:
                raise RuntimeError("Python has ended")
            return _chunk(examples, order, start, part)

    def end(self) -> None:
        time.sleep(0.01)  # whoever waits for Python gets in
        with self.lock:
            self.is_over = True
        time.sleep(0.01)  # and out


_fetching = _Fetching()


def batches(
    examples: TokenizedExamples,
    order: BatchOrder,
    *,
    first: int = 0,
    part: tuple[int, int] = (0, 1),
    weighted: bool = False,
) -> "tf.data.Dataset":
    """The batches of one pass, each padded to its own width.

    Rows that stand for no example have one token, whose id is 0, and weight 0. The others of their batch weigh the
    more for it, so that a mean over all rows is one over the examples.

    Args:
        examples: the tokenised texts.
        order: which example stands in which batch.
        first: the batch to begin with; those before it are not made.
        part: (i, n) for the i-th of n equal parts of each batch, its rows in their order; the rows of a batch are a
            multiple of n. The parts of several processes are together what one process makes.
        weighted: whether weights are among the tensors also where all of them are 1: what is compiled for one epoch
            then serves another, whose order has no row without an example.

    Returns:
        A dataset of known cardinality, of `({"input_ids", "attention_mask", "token_type_ids"}, labels)`, three int32
        tensors (batch, length) and one (batch, ...); followed by float32 weights (batch,) where the examples have some,
        the order has rows without an example, or they are asked for.
    """
    import tensorflow as tf

    weighted = weighted or examples.weights is not None or bool((order.examples == PADDING).any())
    labels = examples.labels
    specification = (
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, 3], tf.int64),
        tf.TensorSpec([None, *labels.shape[1:]], labels.dtype),
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([None, 3], tf.int64),
    )

    @tf.autograph.experimental.do_not_convert
    def chunk(start):
        arrays = tf.numpy_function(
            lambda start: _fetching.chunk(examples, order, int(start), part),
            [start],
            [spec.dtype for spec in specification],
        )
        return [tf.ensure_shape(array, spec.shape) for array, spec in zip(arrays, specification, strict=True)]

    @tf.autograph.experimental.do_not_convert  # nothing here needs it, and it is a third of the time
    def cut(token_ids, row_lengths, labels, weights, bounds):
        rows = tf.RaggedTensor.from_row_lengths(token_ids, row_lengths[:, 0], validate=False)

        @tf.autograph.experimental.do_not_convert
        def batch(bound):
            start, stop, width = tf.unstack(bound)
            input_ids = rows[start:stop].to_tensor(shape=[stop - start, width])
            _, lengths, first_lengths = tf.unstack(row_lengths[start:stop], axis=1)
            attention_mask = tf.sequence_mask(lengths, width, dtype=tf.int32)
            inputs = {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "token_type_ids": attention_mask - tf.sequence_mask(first_lengths, width, dtype=tf.int32),
            }
            return (inputs, labels[start:stop], weights[start:stop]) if weighted else (inputs, labels[start:stop])

        return tf.data.Dataset.from_tensor_slices(bounds).map(batch)

    # Nothing here is left to tune, and the thread that would may sleep for a while after its pipeline is given up.
    options = tf.data.Options()
    options.autotune.enabled = False
    # Where several devices share a batch each takes its rows of it; what is read is not theirs to divide.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    chunks = tf.data.Dataset.range(first, len(order), CHUNK).map(chunk).prefetch(1)
    made = chunks.flat_map(cut).prefetch(PREFETCH).with_options(options)
    return made.apply(tf.data.experimental.assert_cardinality(len(order) - first))


def timed(dataset: "tf.data.Dataset") -> tuple["tf.data.Dataset", Callable[[], float]]:
    """The same elements, and a function that says how many seconds their consumer has waited for them so far.

    Inside tf.data and without Python: a stamp of the wall clock when the next element is asked for, another when it is
    there. `model.fit` asks once a step, at its beginning, and holds no batch ahead, so what is counted is time in which
    the step stands still; bringing a batch from host to device memory is not. Whatever buffers elements behind this
    would ask in the consumer's place.

    Args:
        dataset: of known or unknown cardinality, which is kept.
    """
    import tensorflow as tf

    with tf.device("CPU"):
        waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def arrived(asked, element):
        waited.assign_add(tf.timestamp() - asked)
        return element

    # zip asks its datasets one after the other. A map of a function with state is never made parallel, and without
    # this option tf.data would end every pipeline in a prefetch of its own.
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
    made = tf.data.Dataset.zip((asked, dataset)).map(arrived).with_options(options)
    return made, lambda: float(waited.numpy())


def _chunk(examples: TokenizedExamples, order: BatchOrder, start: int, part: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """What up to CHUNK batches, or these parts of them, hold: token ids end to end; lengths, labels and weights of the
    rows; bounds and width of the batches.

    The lengths of a row are those of its token ids, of its attention mask and of its tokens of type 0.
    """
    stop = min(start + CHUNK, len(order))
    starts = order.starts[start : stop + 1] - order.starts[start]
    chosen = order.examples[order.starts[start] : order.starts[stop]]
    # Keras divides by all rows of a batch; so scaled, its mean is that over the examples.
    rows, sizes = np.diff(starts), np.add.reduceat(chosen != PADDING, starts[:-1], dtype=np.int64)
    factors = np.repeat(rows / sizes, rows)
    index, parts = part
    is_ours = (np.arange(len(chosen)) - np.repeat(starts[:-1], rows)) * parts // np.repeat(rows, rows) == index
    chosen, factors, starts = chosen[is_ours], factors[is_ours], starts // parts
    is_example = chosen != PADDING
    indices = np.where(is_example, chosen, 0)
    lengths = np.where(is_example, examples.lengths[indices], 0)
    attended = np.maximum(lengths, 1)
    first_lengths = attended
    if examples.first_lengths is not None:
        first_lengths = np.where(is_example, examples.first_lengths[indices], 1)
    weights = (is_example * factors).astype(np.float32)
    if examples.weights is not None:
        weights *= examples.weights[indices]
    bounds = np.stack([starts[:-1], starts[1:], order.widths[start:stop]], axis=1)
    row_lengths = np.stack([lengths, attended, first_lengths], axis=1)
    return examples.gather(chosen[is_example]), row_lengths, examples.labels[indices], weights, bounds
