"""PyTorch -> here -> fine-tuning -> PyTorch: the whole way of a checkpoint, on random and on real weights."""

import json

import keras
import numpy as np
import pytest

from tf_finetune import TFBertForSequenceClassification, create_optimizer

torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs the `parity` extra")
transformers = pytest.importorskip("transformers")

LABELS = {0: "bad", 1: "fair", 2: "good"}
TEXTS = [
    "Dull, loud and far too long.",
    "It has its moments.",
    "A wonderful film, full of joy.",
    "Neither here nor there.",
]


@pytest.fixture(scope="module")
def random_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30522,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        initializer_range=0.3,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
        custom_key={"kept": [1, 2]},
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def real_checkpoint(packaged_checkpoint, tmp_path_factory):
    """The packaged weights as PyTorch gives them a classifier."""
    folder = tmp_path_factory.mktemp("real")
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        packaged_checkpoint, id2label=LABELS, label2id={name: index for index, name in LABELS.items()}
    )
    model.config.custom_key = {"kept": [1, 2]}
    model.save_pretrained(folder)
    return folder


@pytest.fixture(params=["random", "real"])
def checkpoint(request):
    return request.getfixturevalue(f"{request.param}_checkpoint")


@pytest.fixture(scope="module")
def inputs(packaged_checkpoint):
    tokenizer = transformers.AutoTokenizer.from_pretrained(packaged_checkpoint)
    return dict(tokenizer(TEXTS, padding="longest", return_tensors="np"))


def pytorch(folder, inputs):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model.config, model(**{name: torch.tensor(value) for name, value in inputs.items()}).logits.numpy()


def test_ten_steps_and_back(checkpoint, inputs, tmp_path):
    _, untrained = pytorch(checkpoint, inputs)
    model = TFBertForSequenceClassification.from_pretrained(checkpoint)
    np.testing.assert_allclose(model(inputs), untrained, atol=1e-5)

    optimizer, _ = create_optimizer(1e-3, 10, 1, weight_decay_rate=0.01)
    model.compile(optimizer, model.default_loss(), jit_compile=False)
    labels = np.array([0, 1, 2, 1])
    before = model.evaluate(inputs, labels, verbose=0)
    model.fit(inputs, labels, batch_size=4, epochs=10, verbose=0)
    assert model.evaluate(inputs, labels, verbose=0) < before

    model.save_pretrained(tmp_path)
    config, logits = pytorch(tmp_path, inputs)
    assert np.abs(logits - untrained).max() > 1e-2
    np.testing.assert_allclose(model(inputs), logits, atol=1e-5)
    assert config.id2label == LABELS
    assert config.label2id == {name: index for index, name in LABELS.items()}
    assert config.custom_key == {"kept": [1, 2]}


def test_shards_of_a_large_model(random_checkpoint, inputs, tmp_path):
    model = TFBertForSequenceClassification.from_pretrained(random_checkpoint)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    _, logits = pytorch(tmp_path, inputs)
    np.testing.assert_allclose(model(inputs), logits, atol=1e-5)
    again = TFBertForSequenceClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(inputs), model(inputs))


class TestWhatOldCodeCalls:
    """The calls of `transformers` 4's TF classes that mean the same here."""

    def test_from_a_transformers_config(self):
        config = transformers.BertConfig(
            vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
        )
        model = TFBertForSequenceClassification(config)
        assert model(np.ones((2, 3), "int32")).shape == (2, 3)

    def test_model_config(self, random_checkpoint):
        model = TFBertForSequenceClassification.from_pretrained(random_checkpoint)
        assert model.config.id2label == LABELS
        assert model.config.hidden_size == 24
        assert model.config.custom_key == {"kept": [1, 2]}

    def test_a_tokenizers_answer_is_an_input(self, random_checkpoint, packaged_checkpoint, inputs):
        model = TFBertForSequenceClassification.from_pretrained(random_checkpoint)
        tokenizer = transformers.AutoTokenizer.from_pretrained(packaged_checkpoint)
        encoded = tokenizer(TEXTS, padding="longest", return_tensors="np")
        assert not isinstance(encoded, dict)
        np.testing.assert_array_equal(model(encoded), model(inputs))
        np.testing.assert_array_equal(model(**encoded), model(inputs))

    def test_from_pt_and_both_label_mappings(self, random_checkpoint):
        model = TFBertForSequenceClassification.from_pretrained(
            random_checkpoint, from_pt=True, id2label={0: "x", 1: "y", 2: "z"}, label2id={"x": 0, "y": 1, "z": 2}
        )
        assert model.architecture.id2label == ("x", "y", "z")

    @pytest.mark.parametrize(
        ("problem_type", "num_labels", "loss"),
        [
            (None, 1, keras.losses.MeanSquaredError),
            (None, 2, keras.losses.SparseCategoricalCrossentropy),
            ("regression", 3, keras.losses.MeanSquaredError),
            ("single_label_classification", 1, keras.losses.SparseCategoricalCrossentropy),
            ("multi_label_classification", 2, keras.losses.BinaryCrossentropy),
        ],
    )
    def test_the_loss_of_a_problem_type(self, random_checkpoint, problem_type, num_labels, loss):
        model = TFBertForSequenceClassification.from_pretrained(
            random_checkpoint, num_labels=num_labels, problem_type=problem_type, new_head=True
        )
        assert isinstance(model.default_loss(), loss)


@pytest.mark.parametrize("removed", [(), ("architectures", "torch_dtype", "dtype", "model_type")])
def test_saved_again_it_is_the_same_file(random_checkpoint, tmp_path, removed):
    """A run that goes on loads what it has saved."""
    (tmp_path / "theirs").mkdir()
    for path in random_checkpoint.iterdir():
        (tmp_path / "theirs" / path.name).write_bytes(path.read_bytes())
    config = json.loads((random_checkpoint / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in removed} | {"model_type": "bert"}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    for source, target in (("theirs", "once"), ("once", "twice")):
        TFBertForSequenceClassification.from_pretrained(tmp_path / source).save_pretrained(tmp_path / target)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes(), name
    assert json.loads((tmp_path / "once" / "config.json").read_text())["dtype"] == "float32"
