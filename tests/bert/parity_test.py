"""The model against the original, PyTorch's BertForSequenceClassification: every number of every drawn model."""

import collections
import dataclasses

import numpy as np
import pytest
from bert_cases import ACTIVATIONS, LARGEST_INITIALIZER_RANGE, Case, draw_case
from bert_numbers import LIMITS, beyond_limits, largest
from bert_parity import FIRST_SEED, compare

from tf_finetune import TFBertForSequenceClassification

pytest.importorskip("torch", reason="the comparison with PyTorch needs the `parity` extra")

GROUPS, GROUP_SIZE = 20, 10
SEEDS = range(FIRST_SEED, FIRST_SEED + GROUPS * GROUP_SIZE)  # 200 configurations, tested in groups
SENTENCES = [
    "It took a while to get going, but the last half hour is as tense as anything the director has ever made.",
    "Dull.",
    "The plot? There is none, and yet one keeps watching: such faces, such light!",
    "A waste of two hours and of a fine cast.",
]


@pytest.fixture(scope="module")
def worst():
    """The largest differences so far; `pytest -s` shows what they came to."""
    found = dict.fromkeys(LIMITS, 0.0)
    yield found
    print("\nlargest differences: " + ", ".join(f"{name} {value:.1e}" for name, value in found.items()))


def with_inputs(case: Case, **inputs) -> Case:
    return dataclasses.replace(case, inputs=inputs)


@pytest.mark.parametrize("first", SEEDS[::GROUP_SIZE])
def test_drawn_models_have_pytorchs_numbers(first, worst, record_property):
    """Logits, hidden states, pooled output, loss and all gradients, without and with every dropout."""
    beyond = {}
    for seed in range(first, first + GROUP_SIZE):
        found = compare(draw_case(seed), seed)
        beyond |= {f"seed {seed}, {name}": value for name, value in beyond_limits(found).items()}
        for name, value in largest(found).items():
            record_property(f"seed {seed}, {name}", value)
            worst[name] = max(worst[name], value)
    assert not beyond


def test_the_drawn_models_differ_in_everything():
    """A draw that forgot an activation or never padded left would prove less than it says."""
    seen = collections.Counter()
    for case in map(draw_case, SEEDS):
        mask = case.inputs.get("attention_mask", np.ones_like(case.inputs["input_ids"]))
        padding = case.inputs["input_ids"] == case.config["pad_token_id"]
        seen.update([case.config["hidden_act"], case.problem, f"{case.config['num_labels']} labels", *case.inputs])
        seen["padding right"] += (np.diff(mask) < 0).any()
        seen["padding left or inside"] += (np.diff(mask) > 0).any()
        seen["padding token, not masked"] += (padding & (mask == 1)).any()
    assert len(seen) == 18
    assert min(seen.values()) >= 20, seen


@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
def test_a_graph_for_any_length_has_pytorchs_numbers(hidden_act):
    """TensorFlow rewrites and fuses there what it runs one by one elsewhere."""
    case = draw_case(3)
    config = case.config | {"hidden_act": hidden_act, "initializer_range": LARGEST_INITIALIZER_RANGE}
    case = dataclasses.replace(case, config=config)
    assert not beyond_limits(compare(case, 3, in_graph=True))


def test_texts_of_one_token_have_pytorchs_numbers():
    case = draw_case(3)
    assert not beyond_limits(compare(with_inputs(case, input_ids=case.inputs["input_ids"][:, :1]), 3))


def test_a_text_longer_than_the_position_table_has_pytorchs_numbers():
    """It may be, as long as it brings position ids: padding of a batch in front of the tokens, say."""
    case = draw_case(3)
    rows = case.config["max_position_embeddings"]
    positions = np.tile(np.arange(rows + 5) % rows, (len(case.labels), 1))
    assert not beyond_limits(compare(with_inputs(case, input_ids=positions % 12, position_ids=positions), 3))


def test_a_text_of_nothing_but_padding_has_pytorchs_numbers():
    case = draw_case(3)
    mask = np.ones_like(case.inputs["input_ids"])
    mask[0] = 0
    assert not beyond_limits(compare(with_inputs(case, input_ids=case.inputs["input_ids"], attention_mask=mask), 3))


@pytest.mark.parametrize("training", [None, False, True])
def test_the_embedding_of_padding_gets_no_gradient(training, tmp_path):
    """PyTorch's nn.Embedding(padding_idx), in either mode and also where the mask calls the padding a token."""
    import tensorflow as tf
    from bert_pytorch import write_checkpoint

    case = draw_case(3)
    case.config["pad_token_id"] = 7
    write_checkpoint(case, tmp_path, 3)
    model = TFBertForSequenceClassification.from_pretrained(tmp_path)
    table = model.bert.embeddings.word_embeddings.embeddings
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model({"input_ids": np.array([[5, 7, 8]])}, training=training))
    gradient = tf.convert_to_tensor(tape.gradient(loss, table.value)).numpy()
    assert list(np.flatnonzero(np.abs(gradient).max(axis=1))) == [5, 8]


def test_the_packaged_weights_give_pytorchs_logits_for_sentences(packaged_checkpoint, tmp_path):
    import torch
    import transformers

    torch.manual_seed(0)
    reference = transformers.BertForSequenceClassification.from_pretrained(packaged_checkpoint, num_labels=3).eval()
    torch.nn.init.normal_(reference.classifier.weight, std=0.5)  # the package has no classifier
    reference.save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(packaged_checkpoint)
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="np")
    assert inputs["attention_mask"].min() == 0
    with torch.no_grad():
        batch = {name: torch.from_numpy(value) for name, value in inputs.items()}
        expected = reference(**batch, output_hidden_states=True)
    model = TFBertForSequenceClassification.from_pretrained(tmp_path)
    np.testing.assert_allclose(model(dict(inputs)), expected.logits, rtol=0, atol=1e-5)
    states, _ = model.bert(**inputs)
    tokens = inputs["attention_mask"].astype(bool)
    for state, wanted in zip(states, expected.hidden_states, strict=True):
        np.testing.assert_allclose(state.numpy()[tokens], wanted.numpy()[tokens], rtol=0, atol=1e-5)
