"""An example's answer is its own: neither its batch nor its padding nor the precision policy changes it."""

import bert_cases
import keras
import numpy as np
import pytest
from bert_cases import Case, draw_weight

from tf_finetune import TFBertForSequenceClassification
from tf_finetune.runtime import precision_policy

# Of the largest float32 logit, or of 1 where that is less: three times the largest over forty drawn models.
PRECISIONS = {"mixed_bfloat16": 0.05, "mixed_float16": 0.01}


def draw_case(seed: int) -> Case:
    """A case with weights that look sharply at few tokens, which is where padding would show."""
    return bert_cases.draw_case(seed, largest_initializer_range=0.4)


def drawn_model(case: Case, seed: int, policy: str = "float32") -> TFBertForSequenceClassification:
    """The case's model with room for padding; the same weights under every policy."""
    random = np.random.default_rng([seed, 1])
    config = {**case.config, "model_type": "bert", "max_position_embeddings": 64}
    with precision_policy(policy):
        model = TFBertForSequenceClassification(config)
        model.build()
    for variable in model.trainable_variables:
        name = variable.path.replace("gamma", "LayerNorm.weight")
        variable.assign(draw_weight(random, name, variable.shape, config["initializer_range"]))
    return model


def spelled_out(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All four inputs, also those that were left to their defaults."""
    input_ids = inputs["input_ids"]
    positions = inputs.get("position_ids", np.arange(input_ids.shape[1], dtype=input_ids.dtype)[None])
    return {
        "input_ids": input_ids,
        "attention_mask": inputs.get("attention_mask", np.ones_like(input_ids)),
        "token_type_ids": inputs.get("token_type_ids", np.zeros_like(input_ids)),
        "position_ids": np.broadcast_to(positions, input_ids.shape),
    }


def padded(inputs: dict[str, np.ndarray], left: int, right: int, fill: int) -> dict[str, np.ndarray]:
    """The same tokens at the same positions, with padding around: the token `fill` at the position `fill`."""
    fills = {"input_ids": fill, "position_ids": fill}
    return {
        name: np.pad(value, ((0, 0), (left, right)), constant_values=fills.get(name, 0))
        for name, value in inputs.items()
    }


@pytest.fixture(params=range(10), ids=lambda seed: f"seed{seed}")
def drawn(request):
    """A model, its inputs spelled out, and its logits for them."""
    case = draw_case(request.param)
    model, inputs = drawn_model(case, request.param), spelled_out(case.inputs)
    return model, inputs, model(inputs).numpy()


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_inputs_left_out_mean_their_defaults(drawn):
    model, inputs, _ = drawn
    bare = {"input_ids": inputs["input_ids"]}
    assert_same(model(bare), model(spelled_out(bare)))


def test_an_example_alone(drawn):
    model, inputs, logits = drawn
    for row in range(len(logits)):
        assert_same(model({name: value[row : row + 1] for name, value in inputs.items()}), logits[row : row + 1])


def test_examples_among_others(drawn):
    model, inputs, logits = drawn
    random, size = np.random.default_rng(0), len(logits)
    strangers = {name: random.permuted(value, axis=1) for name, value in inputs.items()}
    among = {name: np.concatenate([strangers[name], value[::-1], strangers[name]]) for name, value in inputs.items()}
    assert_same(model(among)[size : 2 * size], logits[::-1])


@pytest.mark.parametrize("fill", [0, 7])
def test_more_padding_on_the_right(drawn, fill):
    model, inputs, logits = drawn
    for right in (1, 30):
        assert_same(model(padded(inputs, 0, right, fill)), logits)


def test_padding_on_the_right_without_position_ids(drawn):
    model, inputs, _ = drawn
    short = {name: value[:, :4] for name, value in inputs.items() if name != "position_ids"}
    short["attention_mask"] = np.ones_like(short["attention_mask"])
    assert_same(model(padded(short, 0, 3, 0)), model(short))


@pytest.mark.parametrize(("left", "right"), [(1, 0), (9, 0), (4, 30)])
def test_tokens_see_no_padding_on_either_side(drawn, left, right):
    model, inputs, _ = drawn
    tokens = inputs["attention_mask"].astype(bool)
    length = tokens.shape[1]
    states, _ = model.bert(**inputs)
    more, _ = model.bert(**padded(inputs, left, right, 0))
    for state, wanted in zip(more, states, strict=True):
        assert_same(state.numpy()[:, left : left + length][tokens], wanted.numpy()[tokens])


def test_more_padding_on_the_left(drawn):
    """BERT answers from the first place, as PyTorch's does: from a padding token, if there is any, however many."""
    model, inputs, _ = drawn
    assert_same(model(padded(inputs, 9, 0, 0)), model(padded(inputs, 1, 0, 0)))


@pytest.mark.parametrize("policy", PRECISIONS)
@pytest.mark.parametrize("seed", range(10))
def test_mixed_precision_comes_near(seed, policy):
    case = draw_case(seed)
    inputs = spelled_out(case.inputs)
    wanted = drawn_model(case, seed)(inputs).numpy()
    model = drawn_model(case, seed, policy)
    logits = model(inputs)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    limit = PRECISIONS[policy] * max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=limit)


@pytest.mark.parametrize("policy", ["float32", *PRECISIONS])
def test_a_row_of_nothing_but_padding_is_a_number(policy):
    case = draw_case(3)
    inputs = spelled_out(case.inputs)
    others = drawn_model(case, 3, policy)(inputs).numpy()
    inputs["attention_mask"][1] = 0
    logits = drawn_model(case, 3, policy)(inputs).numpy()
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits[[0, 2]], others[[0, 2]])
