"""Every fault of a weights file gets its name."""

import json
import resource
import time
from pathlib import Path

import checkpoint_files
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_finetune import TFBertForSequenceClassification, TFBertModel
from tf_finetune.bert import hf_weights, layers
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
        InputError, match=r"lacks a tensor, in .*, expected bert.encoder.layer.0.output.dense.bias, got no others"
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


def test_without_prefix_and_with_the_first_names_of_layer_norm(tmp_path, caplog):
    def old(name):
        name = name.removeprefix("bert.")
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    tensors = checkpoint_files.random_tensors()
    checkpoint_files.write_checkpoint(tmp_path, "safetensors", {old(name): value for name, value in tensors.items()})
    model = TFBertForSequenceClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(model.bert.embeddings.layer_norm.gamma, tensors["bert.embeddings.LayerNorm.weight"])
    assert not caplog.messages


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        (
            "BertForMaskedLM",
            ["pooler and classifier newly initialised: train before use"],
        ),
        (
            "BertForQuestionAnswering",
            [
                "pooler and classifier newly initialised: train before use",
                "not used: qa_outputs.bias, qa_outputs.weight, of another head",
            ],
        ),
        ("BertForPreTraining", ["classifier newly initialised: train before use"]),
        ("BertModel", ["classifier newly initialised: train before use"]),
        ("BertForSequenceClassification", []),
        ("BertForMultipleChoice", None),
    ],
)
def test_what_pytorchs_classes_store(tmp_path, caplog, name, notes):
    pytest.importorskip("torch", reason="writes the checkpoint")
    import transformers

    config = transformers.BertConfig(**{**checkpoint_files.TINY.to_dict(), "model_type": "bert"})
    getattr(transformers, name)(config).save_pretrained(tmp_path)
    if notes is None:  # its head has one output for each choice
        with pytest.raises(InputError, match=r"tensor classifier.weight does not fit .* got shape \[1, 8\]"):
            TFBertForSequenceClassification.from_pretrained(tmp_path)
        return
    caplog.clear()
    TFBertForSequenceClassification.from_pretrained(tmp_path)
    assert [record.message for record in caplog.records if record.name == "tf_finetune"] == notes


def test_ignore_mismatched_sizes_says_what_it_starts_anew(tmp_path, caplog):
    checkpoint_files.write_checkpoint(tmp_path, "safetensors", max_position_embeddings=32)
    with pytest.raises(InputError, match=r"position_embeddings.weight does not fit .*\(ignore_mismatched_sizes=True"):
        TFBertForSequenceClassification.from_pretrained(tmp_path)
    model = TFBertForSequenceClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert caplog.messages == [
        "bert.embeddings.position_embeddings.weight newly initialised: "
        "bert.embeddings.position_embeddings.weight has shape [20, 8] in the checkpoint, [32, 8] in the model",
        "classifier.weight newly initialised: "
        "classifier.weight has shape [3, 8] in the checkpoint, [5, 8] in the model",
        "classifier.bias newly initialised: classifier.bias has shape [3] in the checkpoint, [5] in the model",
        "classifier newly initialised: train before use",
    ]
    assert model.bert.embeddings.position_embeddings.embeddings.shape == (32, 8)
    assert 0 < np.abs(model.classifier.kernel).max() < 1
    assert not np.any(model.classifier.bias)


@pytest.mark.parametrize("kind", ["safetensors", "h5", "google"])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 2**40}, r"does not fit the model, in .*, expected shape \[30, 1099511627776\]"),
        ({"vocab_size": 10**12}, r"does not fit the model, in .*, expected shape \[1000000000000, 8\]"),
        ({"num_hidden_layers": 10**9}, "lacks a tensor, in .*, expected bert.encoder.layer.2"),
        ({"id2label": None, "num_labels": 10**9}, "wrong value for num_labels, in .*, expected a whole number from 1"),
        ({"max_position_embeddings": 10**12}, "does not fit the model"),
    ],
)
def test_a_config_that_asks_for_the_impossible_is_refused_at_once(tmp_path, kind, config, message):
    checkpoint_files.write_checkpoint(tmp_path, kind, **config)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        TFBertForSequenceClassification.from_pretrained(tmp_path)
    assert time.perf_counter() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_new_head_beyond_any_memory_is_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(hf_weights, "LARGEST_NEW_BYTES", 100)
    with pytest.raises(InputError, match=r"classifier.weight is too large to be newly initialised, in .* shape \[9, 8"):
        TFBertForSequenceClassification.from_pretrained(checkpoint, num_labels=9, new_head=True)


@pytest.fixture
def model(checkpoint):
    return TFBertForSequenceClassification.from_pretrained(checkpoint)


def weight_files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "config.json")


def test_shards_are_opened_by_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="opens the shards")
    import transformers

    source = checkpoint_files.write_checkpoint(tmp_path / "source", "google", custom_key="kept")
    model = TFBertForSequenceClassification.from_pretrained(source)
    model.save_pretrained(tmp_path / "saved", max_shard_size=2000)
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(checkpoint_files.random_tensors())
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(v.nbytes for v in checkpoint_files.random_tensors().values())
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "saved", attn_implementation="eager"
    ).eval()
    assert reference.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert reference.config.label2id == {"bad": 0, "fair": 1, "good": 2}
    assert reference.config.custom_key == "kept"
    ids = np.arange(1, 9, dtype="int32")[None]
    np.testing.assert_allclose(
        model({"input_ids": ids}), reference(torch.from_numpy(ids).long()).logits.detach(), atol=1e-5
    )


def test_an_earlier_saves_files_are_removed(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size=500)
    assert len(weight_files(tmp_path)) > 4
    model.save_pretrained(tmp_path)
    assert weight_files(tmp_path) == ["model.safetensors"]
    model.save_pretrained(tmp_path, max_shard_size=2000)
    assert "model.safetensors" not in weight_files(tmp_path)
    TFBertForSequenceClassification.from_pretrained(tmp_path)


def test_saving_over_the_folder_that_was_loaded(model, checkpoint):
    model.classifier.bias.assign([5.0, 6.0])
    model.save_pretrained(checkpoint, max_shard_size=500)
    again = TFBertForSequenceClassification.from_pretrained(checkpoint)
    for value, wanted in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("max_shard_size", ["5GB", 500])
def test_a_failed_save_leaves_the_earlier_weights(model, checkpoint, monkeypatch, max_shard_size):
    model.save_pretrained(checkpoint, max_shard_size=max_shard_size)
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    write, written = hf_weights.save_file, []

    def full(tensors, path, **options):
        written.append(path)
        write(tensors, path, **options)
        if max_shard_size == "5GB" or len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(hf_weights, "save_file", full)
    model.classifier.bias.assign([5.0, 6.0])
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(checkpoint, max_shard_size=max_shard_size)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


@pytest.mark.parametrize("max_shard_size", ["5GB", 500])
def test_a_save_that_breaks_off_among_the_renames_loads_as_nothing(model, checkpoint, monkeypatch, max_shard_size):
    """Neither as the earlier model nor, worse, as a mixture; what was written stays beside."""
    model.save_pretrained(checkpoint, max_shard_size=max_shard_size)
    replace = Path.replace

    def broken(self, target):
        if Path(target).suffix == ".safetensors":
            raise OSError("input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="input/output"):
        model.save_pretrained(checkpoint, max_shard_size=max_shard_size)
    with pytest.raises(InputError, match="checkpoint has no weights"):
        TFBertForSequenceClassification.from_pretrained(checkpoint)
    assert list(checkpoint.glob(".saving-*/*.safetensors"))


def test_saved_files_may_be_read_by_whom_the_umask_lets(model, checkpoint):
    model.save_pretrained(checkpoint)
    assert (checkpoint / "model.safetensors").stat().st_mode == (checkpoint / "config.json").stat().st_mode


def test_a_model_of_any_name_is_saved(checkpoint, tmp_path):
    model = TFBertForSequenceClassification(TFBertModel.from_pretrained(checkpoint).architecture, name="lora_seed_")
    model.save_pretrained(tmp_path / "saved")
    again = TFBertForSequenceClassification.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again.classifier.kernel.numpy(), model.classifier.kernel.numpy())


@pytest.mark.parametrize("size", [0, -1, "10", "tiny", 1.5, True])
def test_a_shard_size_that_is_none(model, tmp_path, size):
    with pytest.raises(ValueError, match="`max_shard_size` must be bytes above 0, or such as '5GB'"):
        model.save_pretrained(tmp_path / "saved", max_shard_size=size)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("options", [{}, {"new_head": True}, {"num_labels": 5, "ignore_mismatched_sizes": True}])
@pytest.mark.parametrize("kind", checkpoint_files.KINDS)
def test_every_weight_gets_a_value(tmp_path, monkeypatch, kind, options):
    """A model is built with whatever is in memory; here that is NaN."""
    checkpoint_files.write_checkpoint(tmp_path, kind)
    monkeypatch.setattr(layers, "_blank_tensor", lambda shape, dtype: np.full(shape, np.nan, dtype))
    model = TFBertForSequenceClassification.from_pretrained(tmp_path, **options)
    assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)
    model.enable_lora(2)
    assert all(np.isfinite(weight.numpy()).all() for weight in model.merge_lora().weights)
