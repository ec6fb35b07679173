"""Tokenised examples -> batches, as tf.data."""

from typing import TYPE_CHECKING

from tf_finetune.data.order import BatchOrder
from tf_finetune.data.tokenized import TokenizedExamples

if TYPE_CHECKING:
    import tensorflow as tf


def batches(examples: TokenizedExamples, order: BatchOrder) -> "tf.data.Dataset":
    """The batches of one pass, each padded to its own longest text.

    Args:
        examples: the tokenised texts.
        order: which example stands in which batch.

    Returns:
        A dataset of known cardinality, of `({"input_ids", "attention_mask", "token_type_ids"}, labels)`:
        three int32 tensors (batch, length) and one (batch,).
    """
    import tensorflow as tf

    texts = tf.RaggedTensor.from_row_lengths(examples.input_ids, examples.lengths, validate=False)
    labels, indices, starts = (tf.constant(array) for array in (examples.labels, order.examples, order.starts))

    def batch(step):
        chosen = indices[starts[step] : starts[step + 1]]
        rows = tf.gather(texts, chosen)
        input_ids = rows.to_tensor()
        attention_mask = tf.sequence_mask(rows.row_lengths(), dtype=tf.int32)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": tf.zeros_like(input_ids),
        }
        return inputs, tf.gather(labels, chosen)

    return tf.data.Dataset.range(len(order)).map(batch, num_parallel_calls=1).prefetch(4)
