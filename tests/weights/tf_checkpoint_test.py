"""tf_model.h5 and Google's checkpoint: names, and files that are damaged or lie."""

import checkpoint_files
import numpy as np
import pytest

from tf_finetune import TFBertForSequenceClassification
from tf_finetune.errors import InputError
from tf_finetune.weights import tf_checkpoint
from tf_finetune.weights.stored_weights import stored_weights
from tf_finetune.weights.tf_names import pytorch_name

h5py = pytest.importorskip("h5py")
POOLER = "bert/tf_bert_for_sequence_classification/bert/pooler/dense/kernel:0"


@pytest.fixture
def h5(tmp_path):
    return checkpoint_files.write_checkpoint(tmp_path / "h5", "h5")


@pytest.fixture
def google(tmp_path):
    return checkpoint_files.write_checkpoint(tmp_path / "google", "google")


def refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        TFBertForSequenceClassification.from_pretrained(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert/encoder/layer_11/output/dense/kernel", "bert.encoder.layer.11.output.dense.weight"),
        ("tf_bert_model/bert/encoder/layer_._0/output/dense/bias:0", "bert.encoder.layer.0.output.dense.bias"),
        ("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings.weight"),
        ("bert/tf_bert/bert/embeddings/LayerNorm/gamma:0", "bert.embeddings.LayerNorm.weight"),
        ("output_weights", "classifier.weight"),
        ("bert/pooler/dense/kernel/adam_m", None),
        ("global_step", None),
    ],
)
def test_tensorflows_names(name, expected):
    assert pytorch_name(name) == expected


def replace(folder, create):
    """Deletes the pooler's kernel and lets `create` put something in its place."""
    with h5py.File(folder / "tf_model.h5", "r+") as file:
        del file[POOLER]
        create(file)


def test_a_link_out_of_the_file_is_not_followed(h5, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["kernel"] = np.zeros((8, 8), "float32")
    replace(h5, lambda file: file.__setitem__(POOLER, h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel")))
    assert "bert.pooler.dense.weight" not in stored_weights(h5)


def test_data_in_another_file_is_refused(h5, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(256))
    external = [(str(tmp_path / "secret"), 0, 256)]
    replace(h5, lambda file: file.create_dataset(POOLER, (8, 8), "float32", external=external))
    assert f"tensor {POOLER} lies in another file, in {h5}/tf_model.h5" in refusal(h5)


def test_a_virtual_dataset_is_refused(h5, tmp_path):
    layout = h5py.VirtualLayout((8, 8), "float32")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "kernel", (8, 8))
    replace(h5, lambda file: file.create_virtual_dataset(POOLER, layout))
    assert f"tensor {POOLER} lies in another file" in refusal(h5)


@pytest.mark.parametrize("shape", [(8, 8), (2**40, 2**20)])
def test_a_dataset_without_data_is_named(h5, shape):
    replace(h5, lambda file: file.create_dataset(POOLER, shape, "float32", chunks=(8, 8)))
    assert f"tensor {POOLER} has no data" in refusal(h5)


def test_an_empty_dataset_is_named(h5):
    replace(h5, lambda file: file.__setitem__(POOLER, h5py.Empty("float32")))
    assert f"tensor {POOLER} has no data" in refusal(h5)


def test_links_in_circles_end(h5):
    with h5py.File(h5 / "tf_model.h5", "r+") as file:
        file["bert/circle"] = h5py.SoftLink("/bert")
        file["bert/hard"] = file["bert"]
        file["bert/nowhere"] = h5py.SoftLink("/nowhere")
    TFBertForSequenceClassification.from_pretrained(h5)


def test_a_bomb_is_larger_than_its_file(tmp_path):
    """Zeros that are compressed a thousandfold, of the shape that config.json asks for."""
    folder = checkpoint_files.write_checkpoint(tmp_path, "h5", vocab_size=10**6)
    name = "bert/tf_bert_for_sequence_classification/bert/embeddings/word_embeddings/weight:0"
    with h5py.File(folder / "tf_model.h5", "r+") as file:
        del file[name]
        dataset = file.create_dataset(name, (10**6, 8), "float32", chunks=(10**5, 8), compression="gzip")
        dataset[:10] = 1
    assert f"tensor {name} is larger than its file" in refusal(folder)


def test_text_is_no_weight(h5):
    replace(h5, lambda file: file.create_dataset(POOLER, (8, 8), h5py.string_dtype(), data=[["x"] * 8] * 8))
    assert f"tensor {POOLER} holds no weights" in refusal(h5)


def flip(path, position) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_names_the_tensor(google):
    flip(google / "bert_model.ckpt.data-00000-of-00001", 100)
    message = refusal(google)
    assert message.startswith("unreadable tensor bert/embeddings/")
    assert f"in {google}/bert_model.ckpt.index, got " in message


@pytest.mark.parametrize("position", [3, 100, -1])
def test_a_flipped_bit_of_the_index_is_noticed(google, position):
    flip(google / "bert_model.ckpt.index", position)
    assert f"unreadable weights, in {google}/bert_model.ckpt.index" in refusal(google)


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_data_cut_short_names_a_tensor(google, size):
    path = google / "bert_model.ckpt.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(google).startswith("unreadable tensor bert/embeddings/")


def test_missing_data_is_said(google):
    (google / "bert_model.ckpt.data-00000-of-00001").unlink()
    assert f"in {google}/bert_model.ckpt.index" in refusal(google)


def test_several_checkpoints_are_refused(google):
    for path in list(google.glob("*.ckpt*")):
        path.with_name(path.name.replace(".ckpt", ".ckpt-7")).write_bytes(path.read_bytes())
    assert refusal(google).endswith("expected one, got bert_model.ckpt-7.index, bert_model.ckpt.index")


def test_a_large_tensor_has_the_same_numbers(google, monkeypatch):
    monkeypatch.setattr(tf_checkpoint, "LARGE_BYTES", 1)
    expected = checkpoint_files.random_tensors()
    for name, tensor in stored_weights(google).items():
        np.testing.assert_array_equal(tensor.read(), expected[name])
        np.testing.assert_array_equal(tensor.read(1, 2), expected[name][1:2])


def test_a_large_tensor_is_checked_too(google, monkeypatch):
    monkeypatch.setattr(tf_checkpoint, "LARGE_BYTES", 1)
    flip(google / "bert_model.ckpt.data-00000-of-00001", 100)
    assert refusal(google).startswith("unreadable tensor bert/embeddings/")


def replace_pooler(folder, **options) -> None:
    with h5py.File(folder / "tf_model.h5", "r+") as file:
        del file[POOLER]
        file.create_dataset(POOLER, **options)


def test_strings_in_the_place_of_weights_are_not_read(h5):
    replace_pooler(h5, shape=(8, 8), dtype="S1000", data=np.full((8, 8), b"x"))
    assert "pooler/dense/kernel:0 holds no weights, in" in refusal(h5)


def test_a_chunk_far_larger_than_its_tensor_is_refused(h5):
    chunks = (20_000, 2_000)
    replace_pooler(
        h5, shape=(8, 8), maxshape=(None, None), chunks=chunks, compression="gzip", data=np.ones((8, 8), "f4")
    )
    assert "pooler/dense/kernel:0 is smaller than its chunk, in" in refusal(h5)


def test_groups_without_end_are_refused(h5):
    with h5py.File(h5 / "tf_model.h5", "r+") as file:
        file.create_group("/".join(["bert", *"abcdefghijklmnopqrstuvwxyz"]))
    assert "groups nested too deep, in" in refusal(h5)
