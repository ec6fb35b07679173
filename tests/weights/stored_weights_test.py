"""Every kind of file that people keep a BERT in, right and wrong, without and with the model."""

import json
import shutil
from pathlib import Path

import checkpoint_files
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_finetune import TFBertForSequenceClassification, TFBertModel
from tf_finetune.errors import InputError
from tf_finetune.weights.stored_weights import stored_weights

REFERENCES = Path(__file__).parent / "references"
WITH_HEAD = ("tf_h5", "tf_safetensors", "google_ckpt_finetuned")
WITHOUT_HEAD = ("tf_pretraining_h5", "tf_model_only_h5", "google_ckpt")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# The file of each kind that is damaged in the tests, and one that its reader knows nothing of.
FILES = {
    "safetensors": "model.safetensors",
    "safetensors_shards": "model-00002-of-00003.safetensors",
    "h5": "tf_model.h5",
    "google": "bert_model.ckpt.index",
    "bin": "pytorch_model.bin",
    "old_bin": "pytorch_model.bin",
    "bin_shards": "pytorch_model-00002-of-00003.bin",
}


def needs_torch(kind):
    if kind in checkpoint_files.PICKLED:
        pytest.importorskip("torch", reason="a pickle is read with PyTorch")


def load(folder):
    return TFBertForSequenceClassification.from_pretrained(folder)


def refusal(folder) -> str:
    """What loading says, which is one line of bearable length."""
    with pytest.raises(InputError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.fixture(params=checkpoint_files.KINDS)
def kind(request):
    needs_torch(request.param)
    return request.param


@pytest.fixture
def checkpoint(kind, tmp_path):
    return checkpoint_files.write_checkpoint(tmp_path / "checkpoint", kind)


@pytest.mark.parametrize("name", WITH_HEAD + WITHOUT_HEAD)
def test_the_originals_numbers(name):
    expected = np.load(REFERENCES / name / "expected.npz")
    outputs = TFBertModel.from_pretrained(REFERENCES / name)({key: expected[key] for key in INPUTS})
    real = expected["attention_mask"].astype(bool)
    np.testing.assert_allclose(
        outputs["last_hidden_state"].numpy()[real], expected["last_hidden_state"][real], atol=2e-5
    )
    np.testing.assert_allclose(outputs["pooler_output"], expected["pooler_output"], atol=2e-5)


@pytest.mark.parametrize("name", WITH_HEAD)
def test_the_originals_logits(name):
    expected = np.load(REFERENCES / name / "expected.npz")
    options = {"num_labels": 3} if name.startswith("google") else {}
    model = TFBertForSequenceClassification.from_pretrained(REFERENCES / name, **options)
    np.testing.assert_allclose(model({key: expected[key] for key in INPUTS}), expected["logits"], atol=2e-5)


@pytest.mark.parametrize("name", WITHOUT_HEAD)
def test_a_checkpoint_without_classifier_gets_a_new_one(name, caplog):
    load(REFERENCES / name)
    assert caplog.messages == ["classifier newly initialised: train before use"]


def test_every_kind_has_the_same_tensors(checkpoint):
    stored = stored_weights(checkpoint)
    expected = checkpoint_files.random_tensors()
    assert set(stored) == set(expected)
    for name, tensor in stored.items():
        np.testing.assert_array_equal(tensor.read(), expected[name], err_msg=name)


def test_rows_of_every_kind(checkpoint):
    expected = checkpoint_files.random_tensors()
    for name, tensor in stored_weights(checkpoint).items():
        np.testing.assert_array_equal(tensor.read(1, 2), expected[name][1:2], err_msg=name)


def test_every_kind_loads_without_a_word(checkpoint, caplog):
    load(checkpoint)
    assert not caplog.messages


def test_half_precision_is_read(kind, tmp_path):
    tensors = {name: value.astype(np.float16) for name, value in checkpoint_files.random_tensors().items()}
    stored = stored_weights(checkpoint_files.write_checkpoint(tmp_path, kind, tensors))
    for name, tensor in stored.items():
        np.testing.assert_array_equal(tensor.read(), tensors[name].astype(np.float32))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_bfloat16_is_read(kind, tmp_path):
    torch = pytest.importorskip("torch", reason="writes the file")
    from safetensors.torch import save_file as save_torch

    state = {name: torch.from_numpy(value).bfloat16() for name, value in checkpoint_files.random_tensors().items()}
    checkpoint_files.write_checkpoint(tmp_path, "safetensors")
    if kind == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        save_torch(state, tmp_path / "model.safetensors")
    for name, tensor in stored_weights(tmp_path).items():
        np.testing.assert_array_equal(tensor.read(), state[name].float().numpy())


@pytest.mark.parametrize("part", [0, 1, 9, 0.3, 0.7, -1])
def test_a_file_cut_short_is_named(checkpoint, kind, part):
    path = checkpoint / FILES[kind]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part) if isinstance(part, float) else part])
    assert f"unreadable weights, in {path}" in refusal(checkpoint)


@pytest.mark.parametrize("content", [b"\x80\x04\x95nonsense", b"PK\3\4nonsense", b"\x89HDF\r\n\x1a\n" + b"\0" * 99])
def test_a_file_of_another_kind_is_named(checkpoint, kind, content):
    path = checkpoint / FILES[kind]
    path.write_bytes(content)
    assert f"unreadable weights, in {path}" in refusal(checkpoint)


def test_a_folder_in_place_of_a_file_is_named(checkpoint, kind):
    if "shards" in kind:
        pytest.skip("a shard must be a file: it is missing otherwise")
    path = checkpoint / FILES[kind]
    path.unlink()
    path.mkdir()
    assert f"unreadable weights, in {path}" in refusal(checkpoint)


def test_a_link_to_nowhere_is_named(checkpoint, kind):
    path = checkpoint / FILES[kind]
    path.unlink()
    path.symlink_to("nowhere")
    message = refusal(checkpoint)
    assert "a shard is missing" in message if "shards" in kind else f"unreadable weights, in {path}" in message


def test_links_are_followed_as_the_hubs_cache_has_them(checkpoint, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for number, path in enumerate(sorted(checkpoint.iterdir())):
        shutil.move(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..") / "blobs" / str(number))
    load(snapshot)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_number_that_is_none_is_named(kind, tmp_path, wrong):
    tensors = checkpoint_files.random_tensors()
    tensors["bert.pooler.dense.bias"][3] = wrong
    folder = checkpoint_files.write_checkpoint(tmp_path, kind, tensors)
    assert "is damaged, in " in (message := refusal(folder))
    assert "pooler" in message
    assert "expected finite numbers, got NaN or infinity" in message


def test_whole_numbers_are_no_weights(kind, tmp_path):
    tensors = checkpoint_files.random_tensors()
    tensors["bert.pooler.dense.bias"] = np.arange(8)
    assert "holds no weights, in " in (message := refusal(checkpoint_files.write_checkpoint(tmp_path, kind, tensors)))
    assert "pooler" in message


def test_a_tensor_of_another_shape_is_named(kind, tmp_path):
    tensors = checkpoint_files.random_tensors()
    tensors["bert.pooler.dense.bias"] = np.zeros(7, "float32")
    message = refusal(checkpoint_files.write_checkpoint(tmp_path, kind, tensors))
    assert "does not fit the model" in message
    assert message.endswith("got shape [7]")


def test_a_tensor_with_and_without_prefix_is_stored_twice(tmp_path):
    tensors = checkpoint_files.random_tensors()
    tensors["pooler.dense.bias"] = tensors["bert.pooler.dense.bias"]
    folder = checkpoint_files.write_checkpoint(tmp_path, "safetensors", tensors)
    assert "tensor bert.pooler.dense.bias is stored twice" in refusal(folder)


def test_a_tensors_name_must_be_a_name(tmp_path):
    tensors = checkpoint_files.random_tensors() | {"\x1b[2Jlong": np.zeros(1, "float32")}
    folder = checkpoint_files.write_checkpoint(tmp_path, "safetensors", tensors)
    assert r"got '\x1b[2Jlong'" in refusal(folder)


def test_the_order_of_the_files(tmp_path):
    pytest.importorskip("torch", reason="writes one of the files")
    order = ["safetensors", "safetensors_shards", "h5", "google", "bin", "bin_shards"]
    for kind in order:
        checkpoint_files.write_checkpoint(tmp_path, kind)
    found = []
    for _ in order:
        path = next(iter(stored_weights(tmp_path).values())).file
        found.append(path.name)
        for gone in tmp_path.glob(f"{path.name.split('-0')[0].split('.')[0]}*"):
            if ("-0" in gone.name or "index" in gone.name) == ("-0" in path.name or "index" in path.name):
                gone.unlink()
    assert found == [
        "model.safetensors",
        "model-00001-of-00003.safetensors",
        "tf_model.h5",
        "bert_model.ckpt.index",
        "pytorch_model.bin",
        "pytorch_model-00001-of-00003.bin",
    ]


def test_from_pt_passes_tensorflows_files_over(tmp_path):
    checkpoint_files.write_checkpoint(tmp_path, "h5")
    with pytest.raises(InputError, match=r"no weights, in .*, expected model.safetensors or pytorch_model.bin"):
        TFBertForSequenceClassification.from_pretrained(tmp_path, from_pt=True)


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "..\\x", "a\0b", "", ".", "..", "C:x", "x" * 10_000_000, "new\nline", "\ud800"]
)
def test_an_index_may_only_name_files_beside_it(tmp_path, name):
    folder = checkpoint_files.write_checkpoint(tmp_path, "safetensors_shards")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"bert.pooler.dense.bias": name}}))
    assert "the shard index names no file beside it" in refusal(folder)


@pytest.mark.parametrize("weight_map", [None, 7, [], {"bert.pooler.dense.bias": 7}])
def test_an_index_must_have_names(tmp_path, weight_map):
    folder = checkpoint_files.write_checkpoint(tmp_path, "safetensors_shards")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "unreadable shard index" in refusal(folder)


def test_an_index_of_brackets_is_refused(tmp_path):
    folder = checkpoint_files.write_checkpoint(tmp_path, "safetensors_shards")
    (folder / "model.safetensors.index.json").write_text('{"a":' * 1_000_000)
    assert "unreadable model.safetensors.index.json" in refusal(folder)


def test_a_missing_shard_is_named(tmp_path):
    folder = checkpoint_files.write_checkpoint(tmp_path, "safetensors_shards")
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert refusal(folder).endswith("expected model-00002-of-00003.safetensors")


def test_a_shard_without_its_tensor_is_named(tmp_path):
    folder = checkpoint_files.write_checkpoint(tmp_path, "safetensors_shards")
    path = folder / "model-00003-of-00003.safetensors"
    tensors = load_file(path)
    tensors.pop("bert.pooler.dense.bias")
    save_file(tensors, path)
    assert f"the shard lacks tensor bert.pooler.dense.bias, in {path}" in refusal(folder)


def test_a_tensor_in_two_shards_is_named(tmp_path):
    folder = checkpoint_files.write_checkpoint(tmp_path, "safetensors_shards")
    path = folder / "model-00001-of-00003.safetensors"
    save_file(load_file(path) | {"bert.pooler.dense.bias": np.zeros(8, "float32")}, path)
    assert "tensor bert.pooler.dense.bias is stored twice" in refusal(folder)
