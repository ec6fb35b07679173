"""The arithmetic of one training step: matrix products alone, which are nearly all of it."""

import numpy as np

from tf_finetune.bert.architecture import BertArchitecture

# A product of (m, k) and (k, n) takes 2mkn operations. The backward pass takes two products for each of the forward:
# one for the gradient of what comes in, and one for that of the kernel, which not all need.
FORWARD_AND_BACKWARD = 3
WITHOUT_KERNEL = 2


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
    blocks = _blocks(architecture, batch_size, length, first_only=first_only)
    return sum(kernels + attention for kernels, attention in blocks) + _head(architecture, batch_size)


def step_flops(
    architecture: BertArchitecture,
    *,
    batch_size: int | np.ndarray,
    length: int | np.ndarray,
    first_only: bool = True,
    frozen_embeddings: bool = False,
    frozen_layers: int = 0,
    lora: bool = False,
) -> int | np.ndarray:
    """Operations of one training step, of arguments as for `forward_flops`.

    A block with nothing to train below it is only computed forward. One that is not trained itself, or only by LoRA's
    factors, needs no gradient of its kernels; the factors' own products, a hundredth part, are left out.

    Args:
        architecture, batch_size, length, first_only: as said.
        frozen_embeddings: whether the embeddings are not trained.
        frozen_layers: so many of the first blocks are not.
        lora: whether of all blocks no more than factors beside the kernels are, and no embeddings.
    """
    flops = FORWARD_AND_BACKWARD * _head(architecture, batch_size)
    for i, (kernels, attention) in enumerate(_blocks(architecture, batch_size, length, first_only=first_only)):
        if i < frozen_layers and (frozen_embeddings or lora):
            flops = flops + kernels + attention
        elif i < frozen_layers or lora:
            flops = flops + WITHOUT_KERNEL * kernels + FORWARD_AND_BACKWARD * attention
        else:
            flops = flops + FORWARD_AND_BACKWARD * (kernels + attention)
    return flops


def _blocks(
    architecture: BertArchitecture, batch_size: int | np.ndarray, length: int | np.ndarray, *, first_only: bool
) -> list[tuple[int | np.ndarray, int | np.ndarray]]:
    """Of each block the operations by its kernels, and those of attention between the tokens."""
    hidden, tokens, number = architecture.hidden_size, batch_size * length, architecture.num_hidden_layers
    qkv = 2 * 3 * hidden * hidden
    rest = 2 * hidden * hidden + 2 * 2 * hidden * architecture.intermediate_size
    attention = 2 * 2 * length * hidden  # of one token: scores, and their product with the values
    asked = batch_size if first_only else tokens  # by the last block
    whole, last = (
        (tokens * (qkv + rest), tokens * attention),
        (tokens * qkv + asked * rest, asked * attention),
    )
    return [whole] * (number - 1) + [last]


def _head(architecture: BertArchitecture, batch_size: int | np.ndarray) -> int | np.ndarray:
    """Pooler and classifier."""
    return batch_size * 2 * architecture.hidden_size * (architecture.hidden_size + architecture.num_labels)
