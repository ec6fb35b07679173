"""Every fault of a weights file gets its name."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_finetune import TFBertForSequenceClassification, TFBertModel
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.weight_table import weight_table
from tf_finetune.errors import InputError


@pytest.fixture
def checkpoint(tmp_path):
    architecture = BertArchitecture(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = TFBertForSequenceClassification(architecture)
    model.build()
    model.save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_the_table_names_what_pytorch_names(checkpoint):
    names = {name for entry in weight_table(BertArchitecture(num_hidden_layers=1), head=True) for name in entry.tensors}
    assert names == set(load_file(checkpoint / "model.safetensors"))
    assert "bert.encoder.layer.0.attention.self.query.weight" in names


def test_query_key_and_value_keep_their_places(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    kernel = TFBertModel.from_pretrained(checkpoint).bert.encoder[0].attention.qkv.kernel.numpy()
    for index, name in enumerate(("query", "key", "value")):
        stored = tensors[f"bert.encoder.layer.0.attention.self.{name}.weight"]
        np.testing.assert_array_equal(kernel[:, 8 * index : 8 * (index + 1)], stored.T)


def test_a_missing_tensor_is_named(checkpoint):
    rewrite(checkpoint, lambda tensors: tensors.pop("bert.encoder.layer.0.output.dense.bias"))
    with pytest.raises(
        InputError, match=r"lacks a tensor, in .*, expected bert.encoder.layer.0.output.dense.bias, got 0 others"
    ):
        TFBertForSequenceClassification.from_pretrained(checkpoint)


def test_a_left_over_tensor_is_named(checkpoint):
    rewrite(checkpoint, lambda tensors: tensors.update({"bert.encoder.layer.1.output.dense.bias": np.zeros(8, "f4")}))
    with pytest.raises(InputError, match=r"no place for, in .*, got bert.encoder.layer.1.output.dense.bias"):
        TFBertForSequenceClassification.from_pretrained(checkpoint)


def test_stored_position_ids_and_pretraining_heads_are_passed_over(checkpoint):
    extra = {"bert.embeddings.position_ids": np.arange(512)[None], "cls.predictions.bias": np.zeros(30, "f4")}
    rewrite(checkpoint, lambda tensors: tensors.update(extra))
    TFBertForSequenceClassification.from_pretrained(checkpoint)


def test_a_truncated_file_is_refused(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"unreadable weights, in .*model.safetensors"):
        TFBertForSequenceClassification.from_pretrained(checkpoint)


def test_no_weights_file(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(InputError, match="checkpoint has no weights, in .*, expected model.safetensors"):
        TFBertForSequenceClassification.from_pretrained(checkpoint)
