"""The arithmetic of one training step: matrix products alone, which are nearly all of it."""

import numpy as np

from tf_finetune.bert.architecture import BertArchitecture

# A product of (m, k) and (k, n) takes 2mkn operations. The backward pass takes two products for each of the forward.
FORWARD_AND_BACKWARD = 3


def forward_flops(
    architecture: BertArchitecture,
    *,
    batch_size: int | np.ndarray,
    length: int | np.ndarray,
    first_only: bool = True,
) -> int | np.ndarray:
    """Operations of one forward pass over texts of one length; element-wise work and the lookups are left out.

    Args:
        architecture: sizes of the model.
        batch_size: texts; an int64 array [number of batches] for many batches at once.
        length: tokens of each, padding included; likewise.
        first_only: whether the last block computes queries, keys and values alone for all tokens, and the rest for the
            first of each text, as ours does and other libraries do not.
    """
    hidden, tokens, blocks = architecture.hidden_size, batch_size * length, architecture.num_hidden_layers
    qkv = 2 * 3 * hidden * hidden
    output, feed_forward = 2 * hidden * hidden, 2 * 2 * hidden * architecture.intermediate_size
    attention = 2 * 2 * length * hidden  # of one token: scores, and their product with the values
    rest = output + feed_forward + attention
    head = 2 * hidden * (hidden + architecture.num_labels)  # pooler, classifier
    last = batch_size if first_only else tokens
    return tokens * (blocks * qkv + (blocks - 1) * rest) + last * rest + batch_size * head


def step_flops(
    architecture: BertArchitecture,
    *,
    batch_size: int | np.ndarray,
    length: int | np.ndarray,
    first_only: bool = True,
) -> int | np.ndarray:
    """Operations of one training step, of arguments as for `forward_flops`."""
    forward = forward_flops(architecture, batch_size=batch_size, length=length, first_only=first_only)
    return FORWARD_AND_BACKWARD * forward
