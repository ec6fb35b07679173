"""Our model's numbers for a case, and how far they are from the original's."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import keras
import numpy as np
from bert_cases import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Case, Numbers, dropped

from tf_finetune.bert import kernels, layers
from tf_finetune.native import compiled

LOSSES = {
    REGRESSION: keras.losses.MeanSquaredError(),
    SINGLE_LABEL: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    MULTI_LABEL: keras.losses.BinaryCrossentropy(from_logits=True),
}
# The largest difference of each kind: absolute ones, relative ones of losses above 1 and of gradients.
LIMITS = {"logits": 1e-5, "hidden_states": 1e-5, "pooler_output": 1e-5, "loss": 1e-5, "gradients": 1e-4}
# A gradient's is relative to its tensor's largest value, or to this share of the model's largest where that is more.
GRADIENT_FLOOR = 1e-3
# Keras path -> PyTorch's name, in this order. Written down apart from the package's own weight table, which it checks.
RENAMED = (
    ("bert/layer_", "bert/encoder/layer/"),
    ("attention_layer_norm/", "attention/output/LayerNorm/"),
    ("output_layer_norm/", "output/LayerNorm/"),
    ("layer_norm/", "LayerNorm/"),
    ("output_dense/", "output/dense/"),
    ("intermediate/", "intermediate/dense/"),
    ("pooler/", "pooler/dense/"),
    ("/kernel", "/weight"),
    ("/gamma", "/weight"),
    ("/beta", "/bias"),
    ("_embeddings/embeddings", "_embeddings/weight"),
    ("/", "."),
)


def keras_numbers(
    model, case: Case, *, training: bool, in_graph: bool = False, drop: bool = True, compiled_too: bool = False
) -> Numbers:
    """Runs one batch forward and back.

    Args:
        model: a TFBertForSequenceClassification in float32.
        case: whose inputs and labels are taken.
        training: with every dropout, each scaling by `dropped`; False calls the model as a user does, without saying.
        in_graph: as a tf.function for any batch size and length, as `fit` and an export run it.
        drop: False leaves out dropout in training too.
        compiled_too: with the compiled operations where there are some; those know no `dropped`, so `drop` is False.
    """
    import tensorflow as tf

    training = {"training": True} if training else {}
    variables = {variable.path.split("/", 1)[1]: variable.value for variable in model.trainable_variables}
    inputs = {name: tf.constant(value) for name, value in case.inputs.items()}

    def forward_and_back(inputs):
        with tf.GradientTape() as tape, encoded(model) as (states, pooled):
            logits = model(inputs, **training)
            loss = LOSSES[case.problem](case.labels, logits)
        numbers = {"logits": logits, "loss": loss, "pooler_output": pooled[0]}
        return numbers | {f"hidden_states.{i}": state for i, state in enumerate(states)}, tape.gradient(loss, variables)

    if in_graph:
        signature = {name: tf.TensorSpec([None, None], value.dtype) for name, value in inputs.items()}
        forward_and_back = tf.function(forward_and_back, input_signature=[signature])
    dropout = scaling_dropout() if drop else mock.patch.object(layers.Dropout, "draw", return_value=None)
    compiled.use(compiled_too)
    try:
        with dropout:
            numbers, gradients = forward_and_back(inputs)
    finally:
        compiled.use(True)
    for path, gradient in gradients.items():
        numbers |= _by_pytorch_name(path, tf.convert_to_tensor(gradient).numpy())
    return {name: np.asarray(value) for name, value in numbers.items()}


@contextlib.contextmanager
def encoded(model) -> Iterator[tuple[list, list]]:
    """Two lists that fill with the hidden states and the pooled output when the model is called inside."""
    states, pooled, call = [], [], model.bert.call

    def recording_call(*args, **kwargs):
        outputs = call(*args, **kwargs)
        states.extend(outputs[0])
        pooled.append(outputs[1])
        return outputs

    with mock.patch.object(model.bert, "call", recording_call):
        yield states, pooled


def _by_pytorch_name(path: str, gradient: np.ndarray) -> Numbers:
    if path.endswith("/kernel"):
        gradient = gradient.T
    for ours, theirs in RENAMED:
        path = path.replace(ours, theirs)
    if ".qkv." not in path:
        return {f"gradients.{path}": gradient}
    parts = np.split(gradient, 3)
    names = ("query", "key", "value")
    return {f"gradients.{path.replace('qkv', f'self.{name}')}": part for name, part in zip(names, parts, strict=True)}


def differences(found: Numbers, expected: Numbers, case: Case) -> dict[str, float]:
    """The largest difference in each tensor, measured as `LIMITS` says; hidden states only where there is a token."""
    last = f"hidden_states.{case.config['num_hidden_layers']}"
    if found[last].shape[1] == 1:  # our classifier computes of its last block what it reads, the first token
        expected = expected | {last: expected[last][:, :1]}
    if set(found) != set(expected) or any(found[name].shape != expected[name].shape for name in found):
        raise ValueError(f"not the same tensors: {set(found) ^ set(expected) or 'a shape differs'}")
    tokens = case.inputs.get("attention_mask", np.ones_like(case.inputs["input_ids"])).astype(bool)
    floor = GRADIENT_FLOOR * max(_largest(value) for name, value in expected.items() if kind(name) == "gradients")
    result = {}
    for name, wanted in expected.items():
        difference, unit = found[name] - wanted, 1.0
        if kind(name) == "hidden_states":
            difference = difference[tokens[:, : difference.shape[1]]]
            if name == last and not tokens[:, 0].any():  # no first token is one: the pooled output stands for it
                difference = np.zeros(1)
        elif kind(name) == "gradients":
            unit = max(_largest(wanted), floor)
        elif name == "loss":
            unit = max(_largest(wanted), 1.0)
        result[name] = _largest(difference) / unit
    return result


def kind(name: str) -> str:
    """Which of `LIMITS` holds for a tensor."""
    return name.split(".")[0]


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def largest(found: dict[str, float]) -> dict[str, float]:
    """The largest difference of each kind."""
    return {limit: max(value for name, value in found.items() if kind(name) == limit) for limit in LIMITS}


def beyond_limits(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if not value <= LIMITS[kind(name)]}  # NaN is beyond, too


def scaling_dropout():
    """The model's dropout multiplies by `dropped` instead, in training mode."""

    def dropout(inputs, rate, seed):
        size = keras.ops.shape(inputs)[-1]
        if isinstance(size, int):
            return inputs * dropped(size, rate)
        # A length that a tf.function does not know yet.
        return inputs * (1 + rate * keras.ops.cos(keras.ops.arange(size, dtype="float32")))

    return mock.patch.object(kernels, "dropout", dropout)
