"""Pickles: PyTorch's numbers, and nothing of the file is run."""

import gc
import importlib.util
import pickle
import tempfile
import zipfile
from pathlib import Path

import checkpoint_files
import numpy as np
import pytest

from tf_finetune import TFBertForSequenceClassification
from tf_finetune.errors import InputError
from tf_finetune.weights import torch_weights as module
from tf_finetune.weights.torch_weights import torch_weights

torch = pytest.importorskip("torch", reason="a pickle is read with PyTorch")


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        torch_weights(path)
    message = str(caught.value)
    assert "weights_only" not in message  # PyTorch's advice is to switch that off
    assert len(message) < 500
    return message


@pytest.mark.parametrize("write", ["zip", "old", "raw", "protocol 2"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, write):
    path, made = tmp_path / "pytorch_model.bin", tmp_path / "made"
    content = {"bert.pooler.dense.bias": torch.zeros(2), "evil": Evil(made)}
    if write in ("zip", "old"):
        torch.save(content, path, _use_new_zipfile_serialization=write == "zip")
    else:
        path.write_bytes(pickle.dumps(content["evil"], protocol=2 if write == "protocol 2" else None))
    assert f"unreadable weights, in {path}, expected a PyTorch state dict" in refusal(path)
    assert not made.exists()


def test_what_the_pickle_calls_is_named(tmp_path):
    torch.save({"evil": Evil(tmp_path / "made")}, tmp_path / "x.bin")
    assert "got a pickle that calls " in refusal(tmp_path / "x.bin")


def test_a_malicious_shard_is_refused_and_not_run(tmp_path):
    folder, made = checkpoint_files.write_checkpoint(tmp_path / "checkpoint", "bin_shards"), tmp_path / "made"
    path = folder / "pytorch_model-00002-of-00003.bin"
    torch.save({"evil": Evil(made)}, path)
    with pytest.raises(InputError, match=f"unreadable weights, in {path}"):
        TFBertForSequenceClassification.from_pretrained(folder)
    assert not made.exists()


def test_compressed_members_are_refused(tmp_path):
    checkpoint_files.write_bin({"a": np.zeros(1000, "float32")}, tmp_path / "stored.bin")
    with zipfile.ZipFile(tmp_path / "stored.bin") as old, zipfile.ZipFile(tmp_path / "bomb.bin", "w", 8) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    assert "a compressed checkpoint, in" in refusal(tmp_path / "bomb.bin")


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ([torch.zeros(1)], "got list"),
        ({"state_dict": {"a": torch.zeros(1)}}, "got 'state_dict': dict"),
        ({7: torch.zeros(1)}, "got 7: Tensor"),
        ({"a": "text"}, "got 'a': str"),
    ],
)
def test_what_is_no_state_dict_says_what_it_is(tmp_path, content, got):
    torch.save(content, tmp_path / "x.bin")
    assert refusal(tmp_path / "x.bin") == f"not a state dict, in {tmp_path}/x.bin, expected tensors by name, {got}"


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2, dtype=torch.int64), torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.complex64)],
    ids=["whole", "sparse", "complex"],
)
def test_a_tensor_without_weights_is_named(tmp_path, value):
    torch.save({"a": value}, tmp_path / "x.bin")
    with pytest.raises(
        InputError, match="tensor a holds no weights, in .*x.bin, expected dense floating-point numbers"
    ):
        torch_weights(tmp_path / "x.bin")["a"].read()


def test_a_tensor_of_repeated_memory_is_larger_than_its_file(tmp_path):
    tensors = checkpoint_files.random_tensors()
    folder = checkpoint_files.write_checkpoint(tmp_path, "bin", tensors, vocab_size=10**12)
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    state["bert.embeddings.word_embeddings.weight"] = torch.zeros(1).expand(10**12, 8)
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"word_embeddings.weight is larger than its file, in .*, got shape \[10"):
        TFBertForSequenceClassification.from_pretrained(folder)


def test_without_pytorch_the_error_says_how_to_convert(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    folder = checkpoint_files.write_checkpoint(tmp_path, "bin")
    with pytest.raises(InputError, match=r"a pickle is only read with PyTorch, which is not installed, in .*\.bin, ex"):
        TFBertForSequenceClassification.from_pretrained(folder)
    with pytest.raises(InputError, match=r"from_pretrained\(FOLDER\).save_pretrained\(FOLDER\).*`pip install torch`"):
        TFBertForSequenceClassification.from_pretrained(folder)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_opened_anew_has_the_same_numbers(tmp_path, monkeypatch, zipped):
    monkeypatch.setattr(module, "REOPENED_AFTER_BYTES", 8)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "aside"))
    (tmp_path / "aside").mkdir()
    tensors = checkpoint_files.random_tensors()
    checkpoint_files.write_bin(tensors, tmp_path / "x.bin", zipped=zipped)
    for name, tensor in torch_weights(tmp_path / "x.bin").items():
        np.testing.assert_array_equal(tensor.read(), tensors[name])
    del tensor
    gc.collect()
    assert not list((tmp_path / "aside").iterdir())


def test_no_room_for_an_old_file_is_said(tmp_path, monkeypatch):
    checkpoint_files.write_bin(checkpoint_files.random_tensors(), tmp_path / "x.bin", zipped=False)
    monkeypatch.setattr(module, "REOPENED_AFTER_BYTES", 8)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert "no room to read weights of this old format" in refusal(tmp_path / "x.bin")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_may_not_ask_for_memory(tmp_path, zipped):
    """PyTorch's reader would let it call bytearray, with any number."""

    class Bomb:
        def __reduce__(self):
            return bytearray, (2**45,)

    path = tmp_path / "pytorch_model.bin"
    torch.save({"bert.pooler.dense.bias": Bomb()}, path, _use_new_zipfile_serialization=zipped)
    assert "got a pickle that calls __builtin__.bytearray" in refusal(path)
