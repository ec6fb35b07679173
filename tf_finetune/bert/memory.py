"""How much memory a step of training takes: arithmetic on an architecture's sizes, held against measured peaks."""

import dataclasses

from tf_finetune.bert.architecture import BertArchitecture

MIB = 2**20
# What TensorFlow takes for itself by the first step: traced functions, threads, buffers of matrix products. It is most
# on processors without AVX-512: MiniLM, 16 x 128, blocks computed again, took from 539 to 611 MiB in all, which needs
# 149 here at its most.
BASE = 160 * MIB
FLOAT32 = 4
ERF = ("gelu", "gelu_python")


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes that training takes on one device on top of the weights, which are in memory before it begins.

    Attributes:
        fixed: whatever the batch: gradients, two slots of the optimizer, another copy of the gradients on their way to
            the update, and TensorFlow's own. A sparse gradient of a table becomes dense where it is applied; all others
            are copied when they are clipped.
        per_token: for each token of a batch, padding included.
        per_pair: for each pair of tokens of one text, where attention keeps numbers for each.
    """

    fixed: int
    per_token: int
    per_pair: int

    def of_batch(self, texts: int, length: int) -> int:
        """Bytes that a step on so many texts of so many tokens takes."""
        return self.fixed + texts * length * (self.per_token + length * self.per_pair)

    def most_tokens(self, available: float, length: int) -> int:
        """The most tokens a batch may have in so many bytes, none of its texts longer than `length`."""
        return max(0, int((available - self.fixed) // (self.per_token + length * self.per_pair)))


def step_memory(
    architecture: BertArchitecture,
    *,
    activation_bytes: int,
    gradient_checkpointing: bool,
    compiled: bool,
    accumulation: bool = False,
    averages: bool = False,
    replicas: int = 1,
    trained_weights: int | None = None,
) -> StepMemory:
    """What a step takes with an Adam optimizer and clipped gradients.

    Args:
        architecture: its sizes.
        activation_bytes: 4 for float32, 2 for bfloat16.
        gradient_checkpointing: whether blocks are computed again in the backward pass.
        compiled: whether the operations of native/ are used; they keep less.
        accumulation: whether gradients are summed over the pieces of a batch; "batch" then means a piece.
        averages: whether a moving average of the weights is kept.
        replicas: devices that share each batch; "batch" then means the share of one, and beside its own gradients it
            has the sums of all.
        trained_weights: numbers in the weights that are trained; None means all. What blocks keep is counted of all.
    """
    trained = num_weights(architecture) if trained_weights is None else trained_weights
    hidden, layers = architecture.hidden_size, architecture.num_hidden_layers
    scores = architecture.num_attention_heads * activation_bytes
    in_block = _kept_in_block(architecture, activation_bytes, compiled=compiled)
    # Probabilities, and those that dropout left. The compiled attention computes them again, a few queries at a time.
    pairs_in_block = 0 if compiled else 3 * scores
    # The block at work has its gradients, too; where it is computed again, they are on top of what it keeps.
    blocks_at_work = 2 if gradient_checkpointing else 1
    pairs_at_work = 0 if compiled else 4 * scores
    kept, kept_pairs = (layers - 1) * in_block, (layers - 1) * pairs_in_block  # the last keeps little: one token a text
    if gradient_checkpointing:
        kept, kept_pairs = layers * hidden * activation_bytes, blocks_at_work * pairs_in_block
    # The sums so far and those with a piece's gradient; the averages and what becomes of them in a step.
    copies = (2 * accumulation + 2 * averages + (replicas > 1)) * trained * FLOAT32
    embeddings = 8 * hidden * FLOAT32  # looked up and added in float32, three sparse gradients on the way back
    return StepMemory(
        fixed=4 * trained * FLOAT32 + copies + _rounded_kernels(architecture, activation_bytes) + BASE,
        per_token=kept + blocks_at_work * in_block + embeddings,
        per_pair=kept_pairs + pairs_at_work,
    )


def exchanged_bytes(trained_weights: int, replicas: int) -> int:
    """Bytes that each of several devices sends in one step, and receives, to sum the gradients of all.

    The float32 gradients of all trained weights, those of tables whole, once round a ring of the devices and a second
    time for the sums: 2 (n - 1) / n of them, the least that an all-reduce can do (Patarasuk and Yuan 2009). However
    large the batch, and in however many pieces it is computed, they are exchanged once.

    Args:
        trained_weights: numbers in the weights that are trained.
        replicas: n, devices that share each batch; one alone sends nothing.
    """
    return 2 * (replicas - 1) * trained_weights * FLOAT32 // replicas


def num_weights(architecture: BertArchitecture) -> int:
    """Numbers in all tables, kernels and biases, the classifier's included."""
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    norm = 2 * hidden
    block = 4 * hidden * (hidden + 1) + norm + inner * (hidden + 1) + hidden * (inner + 1) + norm
    head = hidden * (hidden + 1) + architecture.num_labels * (hidden + 1)
    return _table_rows(architecture) * hidden + norm + architecture.num_hidden_layers * block + head


def _table_rows(architecture: BertArchitecture) -> int:
    return architecture.vocab_size + architecture.max_position_embeddings + architecture.type_vocab_size


def _rounded_kernels(architecture: BertArchitecture, activation_bytes: int) -> int:
    """Mixed precision rounds a copy of each kernel."""
    kernels = num_weights(architecture) - _table_rows(architecture) * architecture.hidden_size
    return 0 if activation_bytes == FLOAT32 else kernels * activation_bytes


def _kept_in_block(architecture: BertArchitecture, activation_bytes: int, *, compiled: bool) -> int:
    """Bytes for each token that one block keeps for the backward pass, attention probabilities aside."""
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    # Query, key, value, context; the sum and the end of each half block; GELU's input.
    values = 8 * hidden + inner
    wide = 0
    if not compiled:
        values += 2 * hidden + 2 * inner  # what dropout multiplied by; GELU's output and slope
        wide = 2 * hidden  # what the layer norms normalised, in float32
    if architecture.hidden_act not in ERF:
        values += 5 * inner  # TensorFlow derives the gradient, and keeps every step of the formula
    return values * activation_bytes + wide * FLOAT32
