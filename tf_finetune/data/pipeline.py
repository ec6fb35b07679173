"""Tokenised examples -> batches, as tf.data."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune.data.order import BatchOrder

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class TokenizedExamples:
    """Token ids of every text end to end, tokenised once for all epochs.

    Attributes:
        input_ids: int32 [all tokens], [CLS] and [SEP] included.
        lengths: int64 [examples], tokens of each text.
        labels: int32 [examples], class of each text.
    """

    input_ids: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_lists(cls, token_ids: list[list[int]], labels: list[int]) -> "TokenizedExamples":
        return cls(
            input_ids=np.fromiter((token for ids in token_ids for token in ids), dtype=np.int32),
            lengths=np.array([len(ids) for ids in token_ids], dtype=np.int64),
            labels=np.array(labels, dtype=np.int32),
        )


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
