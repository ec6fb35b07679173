"""Writes the same weights as every kind of file that people keep a BERT in."""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.weight_table import weight_table

KINDS = ("safetensors", "safetensors_shards", "h5", "google", "bin", "old_bin", "bin_shards")
PICKLED = ("bin", "old_bin", "bin_shards")
TINY = BertArchitecture(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=20,
    id2label=("bad", "fair", "good"),
)


def random_tensors(architecture: BertArchitecture = TINY, *, head: bool = True) -> dict[str, np.ndarray]:
    """By PyTorch's names, float32."""
    randomness = np.random.default_rng(0)
    return {
        name: randomness.standard_normal(entry.shape, dtype=np.float32)
        for entry in weight_table(architecture, head=head)
        for name in entry.tensors
    }


def write_checkpoint(folder: Path, kind: str, tensors: dict | None = None, architecture=TINY, **config) -> Path:
    """A folder with config.json and the tensors in files of that kind; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": "bert", **architecture.to_dict(), **config}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    tensors = random_tensors(architecture) if tensors is None else tensors
    if kind == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    elif kind == "safetensors_shards":
        _write_shards(folder, "model", "safetensors", tensors, save_file)
    elif kind == "h5":
        _write_h5(folder / "tf_model.h5", tensors)
    elif kind == "google":
        _write_google(folder / "bert_model.ckpt", tensors)
    elif kind == "bin_shards":
        _write_shards(folder, "pytorch_model", "bin", tensors, write_bin)
    else:
        write_bin(tensors, folder / "pytorch_model.bin", zipped=kind == "bin")
    return folder


def write_bin(tensors: dict, path: Path, *, zipped: bool = True) -> None:
    import torch

    state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)


def _write_shards(folder: Path, stem: str, suffix: str, tensors: dict, write) -> None:
    names = list(tensors)
    files = [f"{stem}-0000{number}-of-00003.{suffix}" for number in (1, 2, 3)]
    # The first, as in a real one, has the table of words alone.
    split = {files[0]: names[:1], files[1]: names[1:20], files[2]: names[20:]}
    for file, part in split.items():
        write({name: tensors[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in split.items() for name in part}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")


def _tf_tensor(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """`bert.encoder.layer.0.output.dense.weight` -> `bert/encoder/layer_0/output/dense/kernel`, transposed."""
    *parts, last = re.sub(r"layer\.(\d+)", r"layer_\1", name).split(".")
    if parts[-1].endswith("_embeddings"):
        return "/".join(parts), value
    if parts[-1] == "LayerNorm":
        return "/".join([*parts, {"weight": "gamma", "bias": "beta"}[last]]), value
    return "/".join([*parts, {"weight": "kernel"}.get(last, last)]), value.T if last == "weight" else value


def _write_h5(path: Path, tensors: dict) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in tensors.items():
            tf_name, value = _tf_tensor(name, value)
            tf_name += "/weight" if tf_name.endswith("_embeddings") else ""
            layer = name.split(".")[0]
            file[f"{layer}/tf_bert_for_sequence_classification/{tf_name}:0"] = value


def _write_google(prefix: Path, tensors: dict) -> None:
    import tensorflow as tf

    head = {"classifier.weight": "output_weights", "classifier.bias": "output_bias"}
    named = [(head[name], value) if name in head else _tf_tensor(name, value) for name, value in tensors.items()]
    names = [name for name, _ in named]
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=[v for _, v in named]
    )
