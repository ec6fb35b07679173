"""How the models are called, built, loaded and saved; parity_test.py compares their numbers with PyTorch's."""

import json

import keras
import numpy as np
import pytest

from tf_finetune import TFBertForSequenceClassification, TFBertModel
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.errors import InputError


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the comparison with PyTorch needs the `parity` extra")


@pytest.fixture(scope="module")
def pytorch_checkpoint(torch, tmp_path_factory):
    """A small random BertForSequenceClassification with three named labels, as PyTorch users save it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=40,
        initializer_range=0.3,
        id2label={0: "bad", 1: "fair", 2: "good"},
        custom_key="kept",
    )
    folder = tmp_path_factory.mktemp("pytorch")
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inputs():
    """Three texts of 7, 12 and 3 tokens padded to 12."""
    random = np.random.default_rng(0)
    lengths = np.array([7, 12, 3])
    attention_mask = (np.arange(12) < lengths[:, None]).astype("int32")
    return {
        "input_ids": random.integers(1, 99, (3, 12)).astype("int32") * attention_mask,
        "attention_mask": attention_mask,
        "token_type_ids": random.integers(0, 2, (3, 12)).astype("int32"),
    }


def pytorch_outputs(torch, folder, inputs):
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    model.eval()
    batch = {name: torch.tensor(value, dtype=torch.long) for name, value in inputs.items()}
    return model, model(**batch)


def test_pytorch_opens_what_save_pretrained_writes(torch, pytorch_checkpoint, inputs, tmp_path):
    model = TFBertForSequenceClassification.from_pretrained(pytorch_checkpoint)
    kernel = model.classifier.kernel
    kernel.assign(kernel + 0.5)
    model.save_pretrained(tmp_path)
    reference, outputs = pytorch_outputs(torch, tmp_path, inputs)
    np.testing.assert_allclose(model(inputs), outputs.logits.detach(), atol=1e-5)
    assert reference.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert reference.config.label2id == {"bad": 0, "fair": 1, "good": 2}
    assert reference.config.custom_key == "kept"


@pytest.fixture
def tiny():
    keras.utils.set_random_seed(0)
    architecture = BertArchitecture(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
        initializer_range=0.5,
    )
    model = TFBertForSequenceClassification(architecture)
    model.build()
    return model


def test_keywords_and_dict_are_the_same_call(tiny):
    ids, types = np.array([[1, 7, 2]], "int32"), np.array([[0, 1, 1]], "int32")
    by_dict = tiny({"input_ids": ids, "token_type_ids": types})
    np.testing.assert_array_equal(by_dict, tiny(ids, token_type_ids=types))
    np.testing.assert_array_equal(by_dict, tiny(input_ids=ids, token_type_ids=types))


def test_an_unknown_input_name_is_refused(tiny):
    with pytest.raises(ValueError, match="inputs must be a dict with `input_ids`"):
        tiny({"input_ids": np.ones((1, 3), "int32"), "segment_ids": np.zeros((1, 3), "int32")})


def test_dropout_acts_in_training_only(tiny):
    ids = {"input_ids": np.array([[1, 7, 9, 2]], "int32")}
    np.testing.assert_array_equal(tiny(ids), tiny(ids))
    assert not np.array_equal(tiny(ids, training=True), tiny(ids, training=True))


def test_one_fit_step_moves_every_weight(tiny):
    before = [variable.numpy() for variable in tiny.trainable_variables]
    tiny.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ids = np.arange(40, dtype="int32").reshape(4, 10) % 30
    types = np.arange(40, dtype="int32").reshape(4, 10) % 2
    tiny.fit({"input_ids": ids, "token_type_ids": types}, np.array([0, 1, 0, 1]), batch_size=4, verbose=0)
    still = [v.path for v, old in zip(tiny.trainable_variables, before, strict=True) if np.array_equal(v.numpy(), old)]
    assert not still


def test_hidden_states_on_request(tiny):
    model = TFBertModel(tiny.architecture, output_hidden_states=True)
    outputs = model({"input_ids": np.ones((2, 5), "int32")})
    assert [state.shape for state in outputs["hidden_states"]] == [(2, 5, 8)] * 3
    np.testing.assert_array_equal(outputs["hidden_states"][-1], outputs["last_hidden_state"])


def test_a_new_head_is_said_aloud(pytorch_checkpoint, tmp_path, caplog):
    TFBertModel.from_pretrained(pytorch_checkpoint).save_pretrained(tmp_path)
    model = TFBertForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    assert "classifier newly initialised" in caplog.text
    assert model.classifier.kernel.shape == (24, 5)


def test_a_head_of_another_size_is_refused(pytorch_checkpoint):
    with pytest.raises(
        InputError, match=r"tensor classifier.weight does not fit .* shape \[5, 24\] .*, got shape \[3, 24\]"
    ):
        TFBertForSequenceClassification.from_pretrained(pytorch_checkpoint, num_labels=5)


def test_num_labels_and_id2label_must_agree(pytorch_checkpoint):
    with pytest.raises(InputError, match="`num_labels` and `id2label` disagree, expected 2 labels, got 3"):
        TFBertForSequenceClassification.from_pretrained(pytorch_checkpoint, num_labels=3, id2label=["no", "yes"])


def test_config_overrides_by_name(pytorch_checkpoint):
    model = TFBertForSequenceClassification.from_pretrained(pytorch_checkpoint, hidden_dropout_prob=0.0)
    assert model.architecture.hidden_dropout_prob == 0.0
    with pytest.raises(
        InputError,
        match="unknown argument .*, expected one like hidden_dropout_prob, got hidden_dropout",
    ):
        TFBertForSequenceClassification.from_pretrained(pytorch_checkpoint, hidden_dropout=0.0)


def test_get_config_rebuilds_the_model(tiny):
    again = TFBertForSequenceClassification.from_config(json.loads(json.dumps(tiny.get_config())))
    assert again.architecture.hidden_size == 8
    assert again.architecture.id2label == tiny.architecture.id2label


def test_a_mask_beside_a_dict_is_refused(tiny):
    ids = np.ones((1, 3), "int32")
    with pytest.raises(ValueError, match=r"one dict or arguments, not both. Received: a dict and \['attention_mask'\]"):
        tiny({"input_ids": ids}, attention_mask=ids)


def test_a_list_is_refused(tiny):
    with pytest.raises(ValueError, match="inputs must be a dict, or arguments, of .* Received: a list"):
        tiny([np.ones((1, 3), "int32"), np.ones((1, 3), "int32")])


def test_inputs_of_other_shapes_are_refused(tiny):
    with pytest.raises(ValueError, match=r"`input_ids` must have the shape \(batch, length\). Received: shape=\(3,\)"):
        tiny(np.ones(3, "int32"))
    with pytest.raises(
        ValueError, match=r"`attention_mask` must be as long as `input_ids`, 3. Received: shape=\(1, 4\)"
    ):
        tiny(np.ones((1, 3), "int32"), attention_mask=np.ones((1, 4), "int32"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            {"hidden_dropout_prob": "0.1"},
            "wrong value for hidden_dropout_prob, .*expected a number from 0 to 1, got '0.1'",
        ),
        ({"hidden_dropout_prob": 2.0}, "wrong value for hidden_dropout_prob"),
        ({"num_attention_heads": 0}, "wrong value for num_attention_heads, .*expected a whole number above 0, got 0"),
        ({"pad_token_id": -1}, "wrong value for pad_token_id"),
        ({"extra": {}}, "unknown argument or config override"),
        ({"num_labels": "3"}, "wrong `num_labels`, expected a whole number above 0, got '3'"),
        ({"id2label": ["a", "a", "b"]}, "two labels have the same name"),
        ({"revision": "main"}, "`revision` is for a name on the hub, expected none with a folder, got main"),
    ],
)
def test_arguments_that_cannot_be(pytorch_checkpoint, override, message):
    with pytest.raises(InputError, match=message):
        TFBertForSequenceClassification.from_pretrained(pytorch_checkpoint, **override)


def test_a_config_from_before_there_were_other_types(pytorch_checkpoint, tmp_path, inputs):
    config = json.loads((pytorch_checkpoint / "config.json").read_text())
    del config["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(pytorch_checkpoint / "model.safetensors")
    expected = TFBertForSequenceClassification.from_pretrained(pytorch_checkpoint)(inputs)
    np.testing.assert_array_equal(TFBertForSequenceClassification.from_pretrained(tmp_path)(inputs), expected)
