"""The layers of BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805), in keras.ops.

Activations travel as (tokens, hidden) with tokens = batch * length: a rank-2 matrix product keeps
TensorFlow's MatMul+BiasAdd+activation fusions, which the rank-3 form (a tensordot) loses.
Every layer and sublayer is named, because weight paths are how checkpoints and decay rules find them.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence

import keras
from keras import layers, ops

from tf_finetune import replicas
from tf_finetune.bert import kernels
from tf_finetune.bert.architecture import BertArchitecture

# Added to the attention score of a padding token; its probability underflows to exactly 0. A score
# of -1e9 would be -inf in float16, and a text of nothing but padding then NaN.
MASKED_SCORE, MASKED_SCORE_FLOAT16 = -1e9, -3e4


def activated_product(name: str):
    """The function of (x, bias, factors, training) that is kernels.product(activation(x + bias), factors).

    Args:
        name: a config.json's `hidden_act`; Hugging Face's "gelu" is the erf form.
    """
    if name in ("gelu", "gelu_python"):
        return lambda x, bias, factors, training: kernels.gelu_product(x, bias, factors, training=training)
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        activation = functools.partial(ops.gelu, approximate=True)
    else:
        activation = keras.activations.get("silu" if name == "swish" else name)

    def plain(x, bias, factors, training):
        return kernels.product(activation(kernels.add_bias(x, bias, training=training)), factors)

    return plain


_blank = contextvars.ContextVar("_blank", default=False)


@contextlib.contextmanager
def blank_weights() -> Iterator[None]:
    """Models built inside start with whatever is in memory: values that a checkpoint replaces cost time, and memory
    that is not written to is not yet taken."""
    token = _blank.set(True)
    try:
        yield
    finally:
        _blank.reset(token)


class _Normal(keras.initializers.RandomNormal):
    def __call__(self, shape, dtype=None):
        return _blank_tensor(shape, dtype) if _blank.get() else super().__call__(shape, dtype)


def _blank_tensor(shape, dtype):
    if keras.backend.backend() != "tensorflow":
        return ops.zeros(shape, dtype)
    import tensorflow as tf

    return tf.raw_ops.Empty(shape=shape, dtype=keras.backend.standardize_dtype(dtype), init=False)


def _initializer(architecture: BertArchitecture):
    return _Normal(stddev=architecture.initializer_range)


class Dropout(layers.Dropout):
    """Dropout whose seed may be drawn beforehand: a block that is computed twice drops the same values."""

    def draw(self, training: bool | None):
        """Two integers that say what to drop; None where nothing is dropped."""
        return replicas.own_seed(self.seed_generator.next()) if training and self.rate else None

    def call(self, inputs, training=None):
        seed = self.draw(training)
        return inputs if seed is None else kernels.dropout(inputs, self.rate, seed)


class Dense(layers.Dense):
    """Keras's, of inputs (rows, features) alone."""

    @property
    def factors(self) -> tuple:
        """What `kernels.product` multiplies by: the kernel, and beside it the two factors of LoRA.

        Keras multiplies by the sum of the kernel and their product, through which the gradient of a whole kernel would
        be computed.
        """
        if not self.lora_enabled:
            return (self.kernel,)
        return self._kernel, self.lora_kernel_a, self.lora_alpha / self.lora_rank * self.lora_kernel_b

    def product(self, inputs):
        """Without the bias and what comes after it."""
        return kernels.product(inputs, self.factors)

    def call(self, inputs, training=None):
        return self.activation(kernels.add_bias(self.product(inputs), self.bias, training=training))


class LayerNormalization(layers.LayerNormalization):
    """Keras's, of inputs (rows, features) alone; its weights are never rounded."""

    def call(self, inputs, training=None):
        inputs = ops.cast(inputs, self.compute_dtype)
        return kernels.layer_norm(inputs, self.gamma, self.beta, epsilon=self.epsilon, training=training)


class DropoutAddNorm(LayerNormalization):
    """layer_norm(residual + dropout(product + bias)), of a product that has no bias yet."""

    def call(self, product, bias, residual, rate, seed=None, training=None):
        """product and residual (rows, features), bias (features,); `seed` of two integers, None drops nothing."""
        return kernels.dropout_add_norm(
            product,
            bias,
            residual,
            self.gamma,
            self.beta,
            rate=rate,
            seed=seed,
            epsilon=self.epsilon,
            training=training,
        )


def dense(units: int, architecture: BertArchitecture, **kwargs) -> Dense:
    return Dense(units, kernel_initializer=_initializer(architecture), **kwargs)


def layer_norm(architecture: BertArchitecture, kind=LayerNormalization, **kwargs) -> LayerNormalization:
    return kind(epsilon=architecture.layer_norm_eps, autocast=False, **kwargs)


class BertEmbeddings(layers.Layer):
    """Word + position + token-type embeddings, LayerNorm, dropout.

    The tables are looked up in float32 under every precision policy: casting them first would cost a
    pass over the whole vocabulary each step and turn their sparse gradient into a dense one.
    """

    def __init__(self, architecture: BertArchitecture, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size = architecture.hidden_size
        self.pad_token_id = architecture.pad_token_id

        def table(rows: int, name: str) -> layers.Embedding:
            return layers.Embedding(
                rows, self.hidden_size, embeddings_initializer=_initializer(architecture), dtype="float32", name=name
            )

        self.word_embeddings = table(architecture.vocab_size, "word_embeddings")
        self.position_embeddings = table(architecture.max_position_embeddings, "position_embeddings")
        self.token_type_embeddings = table(architecture.type_vocab_size, "token_type_embeddings")
        self.layer_norm = layer_norm(architecture, name="layer_norm", dtype="float32")
        self.dropout = Dropout(architecture.hidden_dropout_prob, name="dropout")

    def build(self, input_shape=None):
        for table in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings):
            table.build(None)
        self.layer_norm.build((None, self.hidden_size))

    def word_vectors(self, input_ids):
        """The word embeddings alone, (batch, length, hidden), of ids (batch, length)."""
        hidden = self.word_embeddings(input_ids)
        if self.pad_token_id is None:
            return hidden
        padding = ops.expand_dims(ops.equal(input_ids, self.pad_token_id), -1)
        return ops.where(padding, ops.stop_gradient(hidden), hidden)  # PyTorch's padding_idx: no gradient for this row

    def call(self, input_ids, token_type_ids, position_ids, training=None, word_vectors=None):
        """Three int tensors (batch, length) or broadcastable to it; returns (batch * length, hidden).

        `word_vectors`, (batch, length, hidden), are taken instead of those of the ids.
        """
        hidden = self.word_vectors(input_ids) if word_vectors is None else word_vectors
        hidden = hidden + self.token_type_embeddings(token_type_ids)
        hidden = hidden + self.position_embeddings(position_ids)
        hidden = self.layer_norm(ops.reshape(hidden, (-1, self.hidden_size)), training=training)
        return self.dropout(hidden, training=training)


class BertSelfAttention(layers.Layer):
    """Multi-head self-attention and its output projection; query, key and value are one matrix product."""

    def __init__(self, architecture: BertArchitecture, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size = architecture.hidden_size
        self.num_heads = architecture.num_attention_heads
        self.head_dim = self.hidden_size // self.num_heads
        self.qkv = dense(3 * self.hidden_size, architecture, name="qkv")
        self.dropout = Dropout(architecture.attention_probs_dropout_prob, name="dropout")
        self.output_dense = dense(self.hidden_size, architecture, name="output_dense")

    def build(self, input_shape=None):
        self.qkv.build((None, self.hidden_size))
        self.output_dense.build((None, self.hidden_size))

    def call(self, hidden, score_bias, training=None, seed=None, first_only=False):
        """hidden (batch * length, hidden), score_bias (batch, 1, 1, length); returns the shape of hidden, or of
        each text's first token alone, (batch, hidden).

        The bias of the output projection is not yet added.
        """
        context = kernels.attention(
            self.qkv.product(hidden),
            self.qkv.bias,
            score_bias,
            num_heads=self.num_heads,
            rate=self.dropout.rate,
            seed=seed,
            training=training,
            first_only=first_only,
        )
        return self.output_dense.product(context)


class BertLayer(layers.Layer):
    """One encoder block: attention, then the feed-forward pair, each with dropout, residual and LayerNorm."""

    def __init__(self, architecture: BertArchitecture, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size, self.intermediate_size = architecture.hidden_size, architecture.intermediate_size
        self.attention = BertSelfAttention(architecture, name="attention")
        self.attention_dropout = Dropout(architecture.hidden_dropout_prob, name="attention_dropout")
        self.attention_layer_norm = layer_norm(architecture, DropoutAddNorm, name="attention_layer_norm")
        self.intermediate = dense(self.intermediate_size, architecture, name="intermediate")
        self.activated_product = activated_product(architecture.hidden_act)
        self.output_dense = dense(self.hidden_size, architecture, name="output_dense")
        self.output_dropout = Dropout(architecture.hidden_dropout_prob, name="output_dropout")
        self.output_layer_norm = layer_norm(architecture, DropoutAddNorm, name="output_layer_norm")

    def build(self, input_shape=None):
        hidden_shape = (None, self.hidden_size)
        self.attention.build(hidden_shape)
        self.attention_layer_norm.build(hidden_shape)
        self.intermediate.build(hidden_shape)
        self.output_dense.build((None, self.intermediate_size))
        self.output_layer_norm.build(hidden_shape)

    def draw(self, training: bool | None) -> tuple:
        """The seeds of the three dropouts, in the order they act."""
        dropouts = (self.attention.dropout, self.attention_dropout, self.output_dropout)
        return tuple(dropout.draw(training) for dropout in dropouts)

    def call(self, hidden, score_bias, training=None, seeds=None, first_only=False):
        """hidden (batch * length, hidden), score_bias (batch, 1, 1, length); returns the shape of hidden.

        Args (call):
            seeds: what `draw` gave; None draws them.
            first_only: compute what comes out for the first token of each text alone, and return (batch, hidden).
        """
        in_attention, after_attention, at_the_end = seeds or self.draw(training)
        attended = self.attention(hidden, score_bias, training=training, seed=in_attention, first_only=first_only)
        if first_only:
            hidden = ops.reshape(hidden, (-1, ops.shape(score_bias)[-1], self.hidden_size))[:, 0]
        bias, rate = self.attention.output_dense.bias, self.attention_dropout.rate
        hidden = self.attention_layer_norm(attended, bias, hidden, rate=rate, seed=after_attention, training=training)
        expanded, bias = self.intermediate.product(hidden), self.intermediate.bias
        expanded = self.activated_product(expanded, bias, self.output_dense.factors, training)
        bias, rate = self.output_dense.bias, self.output_dropout.rate
        return self.output_layer_norm(expanded, bias, hidden, rate=rate, seed=at_the_end, training=training)

    def recomputed(self, hidden, score_bias, training=None, first_only=False):
        """The same as a call, but the backward pass computes the block again instead of keeping its inside.

        Keras's own RematScope would let the second computation draw other dropout masks: wrong gradients.
        """
        seeds = self.draw(training)

        def forward(hidden, score_bias):
            return self(hidden, score_bias, training=training, seeds=seeds, first_only=first_only)

        return keras.remat(forward)(hidden, score_bias)


# The kernels of a block that LoRA can update, by their layers' names.
LORA_TARGETS = ("attention/qkv", "attention/output_dense", "intermediate", "output_dense")


class BertBackbone(layers.Layer):
    """Embeddings, encoder blocks and pooler: what every BERT model shares, head aside."""

    def __init__(self, architecture: BertArchitecture, **kwargs):
        super().__init__(**kwargs)
        self.architecture = architecture
        self.embeddings = BertEmbeddings(architecture, name="embeddings")
        self.encoder = [BertLayer(architecture, name=f"layer_{i}") for i in range(architecture.num_hidden_layers)]
        self.pooler = dense(architecture.hidden_size, architecture, activation="tanh", name="pooler")
        self.gradient_checkpointing = False

    def build(self, input_shape=None):
        self.embeddings.build()
        for block in self.encoder:
            block.build()
        self.pooler.build((None, self.architecture.hidden_size))

    def enable_lora(self, rank: int, *, lora_alpha: float | None, targets: Sequence[str]) -> None:
        """Freezes everything but the pooler, and adds trainable factors to the kernels named (see LORA_TARGETS)."""
        for layer in (self.embeddings, *self.encoder):
            for variable in layer.weights:
                variable.trainable = False
        for block in self.encoder:
            denses = dict(
                zip(
                    LORA_TARGETS,
                    (block.attention.qkv, block.attention.output_dense, block.intermediate, block.output_dense),
                    strict=True,
                )
            )
            for target in targets:
                denses[target].enable_lora(rank, lora_alpha=lora_alpha)

    def reinitialize(self, num_layers: int) -> None:
        """Draws the weights of the pooler and of the last blocks anew."""
        for layer in (*self.encoder[len(self.encoder) - num_layers :], self.pooler):
            for variable in layer.weights:
                start = {"kernel": _initializer(self.architecture), "gamma": keras.initializers.Ones()}
                variable.assign(start.get(variable.name, keras.initializers.Zeros())(variable.shape, variable.dtype))

    def freeze(self, *, embeddings: bool, num_layers: int) -> None:
        """Keeps the embeddings, and the first blocks, as they are."""
        for layer in (*([self.embeddings] if embeddings else []), *self.encoder[:num_layers]):
            layer.trainable = False

    def call(
        self,
        input_ids,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        training=None,
        pooled_only=False,
        word_vectors=None,
    ):
        """Int tensors (batch, length), all but the first optional.

        The pooler reads the first token. With `pooled_only` the last block is computed for that one alone: the same
        pooled output, for hardly more than the queries, keys and values of that block.

        `word_vectors`, float32 (batch, length, hidden), are what the embeddings begin with instead of the rows that
        `input_ids` name: `inputs_embeds` in Hugging Face's words. A gradient by them is one by the text.

        Returns:
            A pair: the hidden states (batch, length, hidden) of the embeddings and of each block in a
            list of num_hidden_layers + 1, and the pooled output (batch, hidden). With `pooled_only` the last state
            is that of the first token, (batch, 1, hidden).
        """
        others = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids}
        _check_shapes(input_ids, others)
        batch, length = ops.shape(input_ids)
        if attention_mask is None:
            attention_mask = ops.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = ops.zeros_like(input_ids)
        if position_ids is None:
            if isinstance(length, int) and length > self.architecture.max_position_embeddings:
                raise ValueError(
                    f"`input_ids` must have at most {self.architecture.max_position_embeddings} tokens a text, the "
                    f"model's max_position_embeddings. Received: shape={tuple(input_ids.shape)}"
                )
            position_ids = ops.expand_dims(ops.arange(length, dtype="int32"), 0)
        padding = 1.0 - ops.cast(attention_mask, "float32")
        masked = MASKED_SCORE_FLOAT16 if self.compute_dtype == "float16" else MASKED_SCORE
        score_bias = ops.cast(padding * masked, self.compute_dtype)[:, None, None, :]
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, training=training, word_vectors=word_vectors)
        states = [hidden]
        for block in self.encoder:
            compute = block.recomputed if self.gradient_checkpointing and training else block
            first_only = pooled_only and block is self.encoder[-1]
            hidden = compute(hidden, score_bias, training=training, first_only=first_only)
            states.append(hidden)
        lengths = [length] * len(self.encoder) + [1 if pooled_only else length]
        hidden_size = self.architecture.hidden_size
        states = [ops.reshape(state, (batch, n, hidden_size)) for state, n in zip(states, lengths, strict=True)]
        return states, self.pooler(states[-1][:, 0])


def _check_shapes(input_ids, others: dict) -> None:
    shape = tuple(input_ids.shape)
    if len(shape) != 2:
        raise ValueError(f"`input_ids` must have the shape (batch, length). Received: shape={shape}")
    for name, value in others.items():
        length = shape[1] if value is None else tuple(value.shape)[-1]
        if None not in (length, shape[1]) and length != shape[1]:
            raise ValueError(
                f"`{name}` must be as long as `input_ids`, {shape[1]}. Received: shape={tuple(value.shape)}"
            )
