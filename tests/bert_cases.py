"""Random BERT configurations with inputs and labels for them, from numpy alone: the same numbers on every machine."""

import dataclasses
from typing import Any

import numpy as np

Numbers = dict[str, np.ndarray]  # logits, loss, pooler_output, hidden_states.INDEX, gradients.TENSOR

REGRESSION, SINGLE_LABEL, MULTI_LABEL = "regression", "single_label_classification", "multi_label_classification"
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
# Seven times BERT's own. Beyond it the gradient of the key's bias, 0 on paper, grows to rounding errors above 1e-4 of
# the model's largest gradient in PyTorch itself: its float32 is as far from its float64 as from ours.
LARGEST_INITIALIZER_RANGE = 0.15


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and one batch for it.

    Attributes:
        config: what config.json says of the model, by PyTorch's names; `num_labels` counts its labels.
        problem: the problem_type that PyTorch works out from the config and the labels.
        inputs: by Hugging Face name; what a user may leave out may be missing.
        labels: of the kind the problem needs.
    """

    config: dict[str, Any]
    problem: str
    inputs: dict[str, np.ndarray]
    labels: np.ndarray


def draw_case(seed: int, *, largest_initializer_range: float = LARGEST_INITIALIZER_RANGE) -> Case:
    random = np.random.default_rng([seed, 2])  # the weights are drawn from [seed, 1]
    config = draw_config(random, largest_initializer_range)
    problem = _problem(random, config)
    inputs = draw_inputs(random, config)
    return Case(config, problem, inputs, draw_labels(random, problem, len(inputs["input_ids"]), config["num_labels"]))


def draw_config(random: np.random.Generator, largest_initializer_range: float) -> dict[str, Any]:
    num_heads, vocab_size = int(random.integers(1, 5)), int(random.integers(12, 60))
    return {
        "vocab_size": vocab_size,
        "hidden_size": num_heads * int(random.choice([4, 6, 8])) * (2 if num_heads == 1 else 1),
        "num_hidden_layers": int(random.integers(1, 4)),
        "num_attention_heads": num_heads,
        "intermediate_size": int(random.integers(5, 48)),
        "hidden_act": str(random.choice(ACTIVATIONS)),
        "hidden_dropout_prob": _rate(random),
        "attention_probs_dropout_prob": _rate(random),
        "classifier_dropout": random.choice([None, _rate(random)]),
        "max_position_embeddings": int(random.integers(8, 25)),
        "type_vocab_size": int(random.integers(1, 5)),
        "initializer_range": float(random.uniform(0.02, largest_initializer_range)),
        "layer_norm_eps": float(10 ** random.uniform(-12, -3)),
        "pad_token_id": random.choice([None, 0, int(random.integers(1, vocab_size))]),
        "num_labels": int(random.choice([1, 2, 5])),
        "problem_type": random.choice([None, REGRESSION, SINGLE_LABEL, MULTI_LABEL]),
    }


def _rate(random: np.random.Generator) -> float:
    return float(random.choice([0.0, random.uniform(0, 0.5)]))


def _problem(random: np.random.Generator, config: dict[str, Any]) -> str:
    """The config's problem_type, or the one that PyTorch concludes; changes what cannot be trained."""
    if config["num_labels"] == 1 and config["problem_type"] == SINGLE_LABEL:
        config["problem_type"] = None  # one class alone has loss 0 whatever the weights are
    if config["problem_type"]:
        return config["problem_type"]
    return REGRESSION if config["num_labels"] == 1 else str(random.choice([SINGLE_LABEL, MULTI_LABEL]))


def draw_inputs(random: np.random.Generator, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """A batch of 1 to 4 texts, 2 to max_position_embeddings long; each has a token that is not padding."""
    shape = (int(random.integers(1, 5)), int(random.integers(2, config["max_position_embeddings"] + 1)))
    mask = draw_mask(random, shape)
    input_ids = random.integers(0, config["vocab_size"], shape)
    if (pad_token_id := config["pad_token_id"]) is not None:
        input_ids[random.random(shape) < 0.1] = pad_token_id  # as a token among others
        if random.random() < 0.8:  # and, mostly, where the mask says padding
            input_ids[mask == 0] = pad_token_id
    optional = {
        "attention_mask": mask,
        "token_type_ids": random.integers(0, config["type_vocab_size"], shape),
        "position_ids": random.integers(0, config["max_position_embeddings"], (random.choice([1, shape[0]]), shape[1])),
    }
    given = {name: value for name, value in optional.items() if random.random() < 0.7}
    dtype = random.choice(["int32", "int64"])  # Keras feeds the one, the tokenizers write the other
    return {name: value.astype(dtype) for name, value in {"input_ids": input_ids, **given}.items()}


def draw_mask(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Ones, or padding right, left or anywhere."""
    batch_size, length = shape
    kind = random.choice(["none", "right", "left", "anywhere"])
    if kind == "anywhere":
        mask = random.random(shape) < random.uniform(0.2, 0.9)
        mask[np.arange(batch_size), random.integers(0, length, batch_size)] = True
        return mask.astype("int64")
    lengths = random.integers(1, length + 1, (batch_size, 1)) if kind != "none" else length
    mask = (np.arange(length) < lengths) & np.ones(shape, bool)
    return (mask[:, ::-1] if kind == "left" else mask).astype("int64")


def draw_labels(random: np.random.Generator, problem: str, batch_size: int, num_labels: int) -> np.ndarray:
    if problem == SINGLE_LABEL:
        return random.integers(0, num_labels, batch_size)
    if problem == MULTI_LABEL:
        return random.integers(0, 2, (batch_size, num_labels)).astype("float32")
    shape = (batch_size,) if num_labels == 1 and random.random() < 0.5 else (batch_size, num_labels)
    return random.normal(0, 2, shape).astype("float32")


def draw_weight(random: np.random.Generator, name: str, shape: tuple[int, ...], initializer_range: float) -> np.ndarray:
    """A weight of a model that has learnt: no bias is 0, no LayerNorm the identity, no row of padding empty."""
    mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
    return random.normal(mean, initializer_range, shape).astype("float32")


def dropped(size: int, rate: float) -> np.ndarray:
    """What stands in for dropout where two libraries must agree: a factor for each place along the last axis.

    It depends on the rate and on the axis, so the numbers differ as soon as a dropout has another rate or stands at
    another tensor, even at one that a constant factor would reach as well (the attention's output for its
    probabilities, say).
    """
    return (1 + rate * np.cos(np.arange(size))).astype("float32")
