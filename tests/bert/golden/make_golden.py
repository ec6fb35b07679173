"""Writes the golden checkpoints beside this file: PyTorch's models and what PyTorch answers.

PYTHONPATH=tests python tests/bert/golden/make_golden.py

A few seconds; needs the `parity` extra. Each folder has config.json and model.safetensors as PyTorch saves them, and
expected.safetensors with `inputs.NAME`, `labels` and the numbers that `bert_numbers.keras_numbers` returns for ours.
"""

from pathlib import Path

import numpy as np
from bert_cases import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Case, draw_labels
from safetensors.numpy import save_file

SIZES = {
    "vocab_size": 24,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
}
RIGHT = [[1] * 7 + [0] * 3, [1] * 10, [1] * 3 + [0] * 7]
LEFT = [row[::-1] for row in RIGHT]
ANYWHERE = [[1, 0, 1, 1, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 0, 1, 0, 1]]
# Name -> what config.json says beside the sizes, the mask, and which other inputs there are.
GOLDEN = {
    "gelu": ({"num_labels": 3, "problem_type": SINGLE_LABEL}, RIGHT, ["token_type_ids"]),
    "gelu_new": (
        {"num_labels": 4, "problem_type": MULTI_LABEL, "layer_norm_eps": 1e-5, "pad_token_id": 5},
        LEFT,
        ["position_ids", "token_type_ids"],
    ),
    "gelu_pytorch_tanh": (
        {"num_labels": 1, "problem_type": REGRESSION, "type_vocab_size": 4},
        ANYWHERE,
        ["token_type_ids"],
    ),
    "relu": ({"num_labels": 2, "problem_type": SINGLE_LABEL, "pad_token_id": None}, None, []),
    "silu": ({"num_labels": 2, "problem_type": REGRESSION, "layer_norm_eps": 1e-3}, ANYWHERE, ["position_ids"]),
}


def golden_case(name: str, seed: int) -> Case:
    special, mask, others = GOLDEN[name]
    config = SIZES | {"hidden_act": name, "type_vocab_size": 2, "pad_token_id": 0} | special
    random, shape = np.random.default_rng(seed), (3, 10)
    inputs = {"input_ids": random.integers(0, config["vocab_size"], shape)}
    inputs["input_ids"][1, 4] = config["pad_token_id"] or 0  # padding that the mask calls a token
    if mask is not None:
        inputs["attention_mask"] = np.array(mask)
    sizes = {"token_type_ids": config["type_vocab_size"], "position_ids": config["max_position_embeddings"]}
    inputs |= {other: random.integers(0, sizes[other], shape) for other in others}
    return Case(
        config=config,
        problem=config["problem_type"],
        inputs={key: value.astype("int32") for key, value in inputs.items()},
        labels=draw_labels(random, config["problem_type"], shape[0], config["num_labels"]),
    )


def make(name: str, folder: Path) -> None:
    """Writes one golden checkpoint."""
    from bert_pytorch import pytorch_numbers, write_checkpoint

    seed = list(GOLDEN).index(name)
    case = golden_case(name, seed)
    numbers = pytorch_numbers(write_checkpoint(case, folder, seed), case, training=False)
    inputs = {f"inputs.{key}": value for key, value in case.inputs.items()}
    save_file(numbers | inputs | {"labels": case.labels}, folder / "expected.safetensors")


if __name__ == "__main__":
    for name in GOLDEN:
        make(name, Path(__file__).parent / name)
