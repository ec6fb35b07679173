"""The model against numbers that PyTorch's gave once (golden/make_golden.py): where there is no PyTorch, too."""

import json
from pathlib import Path

import numpy as np
import pytest
from bert_cases import Case
from bert_numbers import beyond_limits, differences, keras_numbers
from safetensors.numpy import load_file

from tf_finetune import TFBertForSequenceClassification

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/expected.safetensors"))


def read(folder: Path) -> tuple[Case, dict[str, np.ndarray]]:
    """A golden checkpoint's inputs and labels, and PyTorch's numbers for them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    expected = load_file(folder / "expected.safetensors")
    inputs = {name.removeprefix("inputs."): expected.pop(name) for name in list(expected) if name.startswith("inputs.")}
    return Case(config, config["problem_type"], inputs, expected.pop("labels")), expected


def test_there_is_one_for_each_activation():
    assert NAMES == ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]
    assert [read(GOLDEN / name)[0].config["hidden_act"] for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_the_golden_ones(name):
    case, expected = read(GOLDEN / name)
    model = TFBertForSequenceClassification.from_pretrained(GOLDEN / name)
    assert not beyond_limits(differences(keras_numbers(model, case, training=False), expected, case))


@pytest.mark.parametrize("name", NAMES)
def test_the_script_still_makes_them(name, tmp_path):
    pytest.importorskip("torch", reason="making golden checkpoints needs the `parity` extra")
    from bert.golden import make_golden

    make_golden.make(name, tmp_path)
    (case, kept), (made_case, made) = read(GOLDEN / name), read(tmp_path)
    assert not beyond_limits(differences(made, kept, case))
    np.testing.assert_equal(made_case.inputs, case.inputs)
    np.testing.assert_equal(made_case.labels, case.labels)
    weights, made_weights = (load_file(folder / "model.safetensors") for folder in (GOLDEN / name, tmp_path))
    np.testing.assert_equal(made_weights, weights)
    known = case.config.keys() & made_case.config.keys() - {"transformers_version"}
    assert {key: made_case.config[key] for key in known} == {key: case.config[key] for key in known}
