"""LiteRT against the Keras model it was converted from."""

import numpy as np
import pytest
from tiny_forms import answer_of, batch, tiny_model

from tf_finetune.serving.litert import litert_logits, save_litert

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the `litert` extra")

# Enough values in each matrix for the converter to think int8 worth it.
SIZES = {"hidden_size": 64, "intermediate_size": 128}


@pytest.fixture(scope="module")
def model():
    return tiny_model(**SIZES)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    save_litert(model, path)
    return path


def difference(logits, model, lengths, **options):
    """The largest, in units of how far the model's answers are apart."""
    spread = np.ptp(answer_of(model, batch([40] * 5)))
    inputs = batch(lengths, **options)
    return np.abs(logits(inputs) - answer_of(model, inputs)).max() / spread


def test_one_loaded_model_takes_every_batch_and_length(model, path):
    logits = litert_logits(path)
    for lengths in ([7], [1], [3, 9, 1], [40] * 5, [7]):
        assert logits(batch(lengths)).shape == (len(lengths), 2)
        assert difference(logits, model, lengths, pairs=True) < 0.2, lengths


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_arithmetic_is_that_of_the_model(activation, tmp_path):
    """Matrices of less than 1,024 values stay float32, so that nothing is rounded."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    model = tiny_model(hidden_act=activation, **sizes)
    save_litert(model, tmp_path / "model.tflite")
    logits = litert_logits(tmp_path / "model.tflite")
    for lengths in ([7], [1], [3, 9, 1]):
        inputs = batch(lengths, pairs=True)
        np.testing.assert_allclose(logits(inputs), answer_of(model, inputs), atol=2e-5)


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu"])
def test_other_activations(activation, tmp_path):
    model = tiny_model(hidden_act=activation, **SIZES)
    save_litert(model, tmp_path / "model.tflite")
    assert difference(litert_logits(tmp_path / "model.tflite"), model, [5, 9]) < 0.2


@pytest.mark.parametrize(
    ("labels", "problem_type"), [(("score",), "regression"), (tuple("abcde"), "multi_label_classification")]
)
def test_as_many_logits_as_labels(labels, problem_type, tmp_path):
    model = tiny_model(id2label=labels, problem_type=problem_type, **SIZES)
    save_litert(model, tmp_path / "model.tflite")
    logits = litert_logits(tmp_path / "model.tflite")
    assert logits(batch([5, 9])).shape == (2, len(labels))
    assert difference(logits, model, [5, 9]) < 0.2


def test_the_second_text_of_a_pair_counts(path):
    logits = litert_logits(path)
    assert np.abs(logits(batch([9])) - logits(batch([9], pairs=True))).max() > 0.01


def test_padding_changes_nothing_but_the_last_digits(path):
    logits = litert_logits(path)
    padded, alone = logits(batch([4, 8], width=30)), logits(batch([4, 8]))
    np.testing.assert_allclose(padded, alone, atol=0.02 * np.ptp(alone))


def test_matrices_are_int8_with_a_scale_an_output(path):
    loaded = interpreter.Interpreter(str(path))
    loaded.allocate_tensors()
    matrices = [one for one in loaded.get_tensor_details() if one["dtype"] == np.int8]
    assert {tuple(one["shape"]) for one in matrices} >= {(192, 64), (128, 64), (64, 128), (64, 64), (50, 64)}
    scales = {tuple(one["shape"]): len(one["quantization_parameters"]["scales"]) for one in matrices}
    assert (scales[192, 64], scales[128, 64]) == (192, 128)


def test_inputs_are_int32_with_free_dimensions(path):
    details = interpreter.Interpreter(str(path)).get_signature_runner("serving_default").get_input_details()
    assert set(details) == {"input_ids", "attention_mask", "token_type_ids"}
    for one in details.values():
        assert one["dtype"] == np.int32
        assert one["shape_signature"].tolist() == [-1, -1]
