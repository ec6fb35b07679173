"""ONNX against the Keras model it was written from."""

import numpy as np
import pytest
from tiny_forms import answer_of, batch, tiny_model

from tf_finetune.serving.onnx_files import FLOAT32, INT8, onnx_logits, save_onnx
from tf_finetune.serving.onnx_graph import bert_graph

onnx = pytest.importorskip("onnx", reason="needs the `onnx` extra")
pytest.importorskip("onnxruntime", reason="needs the `onnx` extra")

SHAPES = ([7], [1], [3, 9, 1], [40] * 5)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    save_onnx(model, folder)
    return folder


@pytest.mark.parametrize("lengths", SHAPES, ids=str)
def test_every_batch_and_length_gets_the_answer_of_the_model(model, folder, lengths):
    inputs = batch(lengths, pairs=True)
    logits = onnx_logits(folder / FLOAT32)(inputs)
    assert (logits.dtype, logits.shape) == (np.float32, (len(lengths), 2))
    np.testing.assert_allclose(logits, answer_of(model, inputs), atol=2e-5)


@pytest.mark.parametrize(
    "activation", ["gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"]
)
def test_every_activation_is_that_of_the_model(activation, tmp_path):
    model, inputs = tiny_model(hidden_act=activation), batch([5, 9])
    onnx.save(bert_graph(model), tmp_path / FLOAT32)
    np.testing.assert_allclose(onnx_logits(tmp_path / FLOAT32)(inputs), answer_of(model, inputs), atol=2e-5)


@pytest.mark.parametrize(
    ("labels", "problem_type"), [(("score",), "regression"), (tuple("abcde"), "multi_label_classification")]
)
def test_as_many_logits_as_labels(labels, problem_type, tmp_path):
    model, inputs = tiny_model(id2label=labels, problem_type=problem_type), batch([5, 9])
    save_onnx(model, tmp_path)
    np.testing.assert_allclose(onnx_logits(tmp_path / FLOAT32)(inputs), answer_of(model, inputs), atol=2e-5)
    assert onnx_logits(tmp_path / INT8)(inputs).shape == (2, len(labels))


def test_the_second_text_of_a_pair_counts(folder):
    logits = onnx_logits(folder / FLOAT32)
    assert np.abs(logits(batch([9])) - logits(batch([9], pairs=True))).max() > 0.01


def test_padding_changes_nothing(folder):
    logits = onnx_logits(folder / FLOAT32)
    np.testing.assert_allclose(logits(batch([4, 8], width=30)), logits(batch([4, 8])), atol=2e-5)


def test_int8_is_near_and_takes_every_shape(model, folder):
    logits = onnx_logits(folder / INT8)
    spread = np.ptp(answer_of(model, batch([40] * 5)))
    for lengths in SHAPES:
        inputs = batch(lengths)
        difference = np.abs(logits(inputs) - answer_of(model, inputs)).max()
        assert 0 < difference < 0.1 * spread, lengths


def test_int8_weights_have_seven_bits_and_a_scale_a_column(folder):
    graph = onnx.load(folder / INT8).graph
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    scales = weights["layer_0.intermediate.weight_scale"]
    values = weights["layer_0.intermediate.weight_quantized"]
    assert values.dtype == np.int8
    assert np.abs(values.astype(int)).max() <= 64
    assert scales.shape == (64,)
    assert not [name for name, value in weights.items() if value.dtype == np.float32 and value.size > 64 * 2]


def test_inputs_are_int32_with_free_dimensions_and_operations_standard(folder):
    model = onnx.load(folder / FLOAT32)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    names = {one.name: one.type.tensor_type for one in model.graph.input}
    assert list(names) == ["input_ids", "attention_mask", "token_type_ids"]
    for tensor in names.values():
        assert tensor.elem_type == onnx.TensorProto.INT32
        assert [dim.dim_param for dim in tensor.shape.dim] == ["batch", "length"]


def test_a_text_longer_than_the_position_table_is_an_error(folder):
    with pytest.raises(Exception, match="41"):
        onnx_logits(folder / FLOAT32)(batch([41]))


def test_nothing_is_said(model, tmp_path, capfd, caplog):
    save_onnx(model, tmp_path)
    onnx_logits(tmp_path / INT8)(batch([4]))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
