"""Weights between a checkpoint and a model, both ways; what belongs to what is said by the weight table alone."""

import dataclasses
import math
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import save_file

from tf_finetune import json_files
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.weight_table import Entry, weight_table
from tf_finetune.errors import InputError
from tf_finetune.weights.stored_tensor import StoredTensor
from tf_finetune.weights.stored_weights import SAFETENSORS

# Buffers that PyTorch happened to store, and the heads of pretraining: they have no place here, and nobody misses them.
IGNORED = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids", "cls.")
# What may be missing, and is then newly initialised.
OPTIONAL = {"bert.pooler": "pooler", "classifier": "classifier"}
# Rows of a large tensor read and assigned at once: what loading needs beside the model itself.
CHUNK_BYTES = 4 * 2**20
# No head is larger; a config.json that asks for more is a mistake, or worse.
LARGEST_NEW_BYTES = 4 * 2**30
SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


@dataclasses.dataclass(frozen=True)
class Match:
    """Which stored tensors become which variables, settled before any memory is taken.

    Attributes:
        found: entries of the table, each with its tensors.
        new: entries that are newly initialised.
        notes: what the user should know: what was initialised, what was not used.
    """

    found: list[tuple[Entry, list[StoredTensor]]]
    new: list[Entry]
    notes: list[str]


def match(
    stored: dict[str, StoredTensor],
    architecture: BertArchitecture,
    *,
    folder: Path,
    head: bool,
    new_head: bool = False,
    ignore_mismatched_sizes: bool = False,
) -> Match:
    """Finds a tensor for every weight.

    The pooler and the classifier may be missing, and heads for other tasks may be left over; both are noted.

    Args:
        stored: what the checkpoint has.
        architecture: what the model needs.
        folder: of the checkpoint, for messages.
        head: whether the model has a classifier.
        new_head: pass a stored classifier over.
        ignore_mismatched_sizes: initialise anew what has another shape, instead of refusing it.

    Raises:
        InputError: a weight of the encoder is missing, left over or of another shape.
    """
    stored = _by_modern_name(stored)
    heads = {name for name in stored if name.startswith("classifier.")}
    if new_head or not head:
        stored = {name: tensor for name, tensor in stored.items() if name not in heads}
    found, new, missing = [], {}, []
    for entry in weight_table(architecture, head=head):
        lacking = [name for name in entry.tensors if name not in stored]
        tensors = [stored.pop(name) for name in entry.tensors if name in stored]
        misfit = next((tensor for tensor in tensors if tensor.shape != entry.shape), None)
        if misfit and not ignore_mismatched_sizes:
            raise _misfit(misfit, entry)
        if not lacking and not misfit:
            found.append((entry, tensors))
        elif misfit or lacking[0].startswith(tuple(OPTIONAL)):
            new[entry] = misfit
        else:
            missing += lacking
            if len(missing) > 8:  # no need to go on; a config may ask for a billion layers
                break
    if missing:
        others = f"{len(stored)} others: {_some(sorted(stored))}" if stored else "no others"
        raise InputError("checkpoint lacks a tensor", where=folder, expected=_some(missing), got=others)
    _check_sizes(found, new, folder)
    notes = ["the stored classifier is not used: a new one was asked for"] if new_head and heads else []
    return Match(found, list(new), notes + _initialised(new, new_head=new_head) + _left_over(stored, folder))


def _misfit(tensor: StoredTensor, entry: Entry) -> InputError:
    ways = "ignore_mismatched_sizes=True starts it anew"
    if entry.path.startswith("classifier"):
        ways = f"num_labels={tensor.shape[0] if tensor.shape else 0} keeps it, {ways}"
    return InputError(
        f"tensor {tensor.name} does not fit the model",
        where=tensor.file,
        expected=f"shape {list(entry.shape)} ({ways})",
        got=f"shape {list(tensor.shape)}",
    )


def _initialised(new: dict[Entry, StoredTensor | None], *, new_head: bool) -> list[str]:
    """What to say of the entries that start anew; a head that was asked for is no news."""
    notes = [
        f"{', '.join(entry.tensors)} newly initialised: {misfit.name} has shape {list(misfit.shape)} in the "
        f"checkpoint, {list(entry.shape)} in the model"
        for entry, misfit in new.items()
        if misfit
    ]
    parts = [part for start, part in OPTIONAL.items() if any(entry.tensors[0].startswith(start) for entry in new)]
    if new_head:
        parts = [part for part in parts if part != "classifier"]
    return notes + ([f"{' and '.join(parts)} newly initialised: train before use"] if parts else [])


def _check_sizes(found: list[tuple[Entry, list[StoredTensor]]], new: Iterable[Entry], folder: Path) -> None:
    """Refuses a checkpoint that claims more than it holds, before memory for the claim is taken."""
    tensors = [tensor for _, parts in found for tensor in parts]
    held = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    if sum(math.prod(tensor.shape) for tensor in tensors) > held:
        largest = max(tensors, key=lambda tensor: math.prod(tensor.shape))
        shape = f"shape {list(largest.shape)}"
        raise InputError(f"tensor {largest.name} is larger than its file", where=largest.file, got=shape)
    for entry in new:
        if 4 * len(entry.tensors) * math.prod(entry.shape) > LARGEST_NEW_BYTES:
            raise InputError(
                f"{entry.tensors[0]} is too large to be newly initialised",
                where=folder,
                expected=f"at most {LARGEST_NEW_BYTES // 2**30} GiB",
                got=f"shape {list(entry.shape)}",
            )


def _left_over(stored: dict[str, StoredTensor], folder: Path) -> list[str]:
    names = sorted(name for name in stored if not name.startswith(IGNORED))
    inside = [name for name in names if name.startswith("bert.")]
    if inside:
        raise InputError("checkpoint has tensors this model has no place for", where=folder, got=_some(inside))
    return [f"not used: {_some(names)}, of another head"] if names else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _by_modern_name(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """By the table's names: the `bert.` prefix added where it lacks, LayerNorm's gamma and beta renamed."""
    modern: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"bert.{name}"
        if name in modern:
            raise InputError(
                f"tensor {name} is stored twice", where=tensor.file, got=f"{modern[name].name}, {tensor.name}"
            )
        modern[name] = tensor
    return modern


def assign(model, matched: Match) -> None:
    """Reads the tensors into a built model, a few megabytes at a time.

    Raises:
        InputError: a tensor cannot be read, or is no weight.
    """
    for entry, tensors in matched.found:
        _fill(_variable(model, entry.path), entry, tensors)
    for entry in matched.new:
        *layers, name = entry.path.split("/")
        initializer = getattr(_layer(model, layers), f"{name}_initializer")
        variable = _variable(model, entry.path)
        variable.assign(initializer(variable.shape, dtype=variable.dtype))


def _fill(variable, entry: Entry, tensors: list[StoredTensor]) -> None:
    """Copies the tensors into the variable, some rows at a time: rows of a kernel are columns here."""
    rows, row_bytes = entry.shape[0], 4 * math.prod(entry.shape[1:])
    step = max(CHUNK_BYTES // row_bytes, 1)
    whole = None if _can_write_parts() else np.empty(variable.shape, np.float32)
    for part, tensor in enumerate(tensors):
        for start in range(0, rows, step):
            value = tensor.read(start, min(start + step, rows))
            place = slice(part * rows + start, part * rows + start + len(value))
            if whole is None:
                _write_part(variable, value, place, transposed=entry.transposed)
            elif entry.transposed:
                whole[:, place] = value.T
            else:
                whole[place] = value
    if whole is not None:
        variable.assign(whole)


def _can_write_parts() -> bool:
    """Only TensorFlow's own variables can be written in parts; JAX's are replaced, mirrored ones are many."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()


def _write_part(variable, value: np.ndarray, place: slice, *, transposed: bool) -> None:
    import tensorflow as tf

    begin, end = ([0, place.start], [variable.shape[0], place.stop]) if transposed else ([place.start], [place.stop])
    # `value[begin:end].assign` would do, but reads the whole variable first, and so makes a second one.
    tf.raw_ops.ResourceStridedSliceAssign(
        ref=variable.value.handle,
        begin=begin,
        end=end,
        strides=[1] * len(begin),
        value=tf.cast(value.T if transposed else value, variable.dtype),
    )


def _variable(model, path: str) -> "keras.Variable":
    """The weight at a path of the table; by the layers' attributes, because a user may give the model any name."""
    *layers, name = path.split("/")
    return next(weight for weight in _layer(model, layers).weights if weight.name == name)


def _layer(model, names: list[str]) -> keras.layers.Layer:
    """The layer at a path; an attribute has its layer's name, and encoder blocks are in a list."""
    layer = model
    for name in names:
        block = name.removeprefix("layer_")
        layer = layer.encoder[int(block)] if block.isdecimal() else getattr(layer, name)
    return layer


def save(model, folder: Path, *, config: dict[str, Any], max_shard_size: int | str) -> None:
    """Writes config.json and the model's weights under their Hugging Face names, float32, LoRA factors merged in.

    Everything is written aside first: until then an earlier model in the folder stays as it is. Its weights go
    before the new ones come, so that there is never a folder that loads as a mixture of both.

    Args:
        model: built.
        folder: to write model.safetensors to, or its shards and their index.
        config: the content of config.json.
        max_shard_size: of one file, in bytes or as "5GB"; one tensor is never split.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    sources = _sources(model)
    split = split_state_dict_into_shards_factory(
        sources,
        get_storage_size=lambda source: 4 * math.prod(source[0].shape),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    aside = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
    try:
        json_files.write(aside / "config.json", config, allow_nan=True)  # unknown keys may hold it
        mode = (aside / "config.json").stat().st_mode  # what the user's umask gives
        for file, names in split.filename_to_tensors.items():
            save_file({name: _tensor(model, *sources[name]) for name in names}, aside / file, metadata={"format": "pt"})
            (aside / file).chmod(mode)  # save_file lets only its owner read
        if split.is_sharded:
            json_files.write(aside / f"{SAFETENSORS}.index.json", index)
    except BaseException:
        shutil.rmtree(aside)
        raise
    for path in folder.iterdir():
        if SHARD.fullmatch(path.name):
            path.unlink()
    for path in sorted(aside.iterdir(), key=lambda path: (path.name.endswith(".index.json"), path.name)):
        path.replace(folder / path.name)  # the index last: without it shards are no checkpoint
    aside.rmdir()


def _sources(model) -> dict[str, tuple[Entry, int]]:
    """Where each tensor comes from: its entry, and which part of the variable it is."""
    headless = not hasattr(model, "classifier")  # PyTorch's BertModel names its tensors without the prefix
    table = weight_table(model.architecture, head=not headless)
    return {
        name.removeprefix("bert.") if headless else name: (entry, part)
        for entry in table
        for part, name in enumerate(entry.tensors)
    }


def _tensor(model, entry: Entry, part: int) -> np.ndarray:
    value = np.split(_merged(model, entry), len(entry.tensors), axis=-1)[part]
    return np.ascontiguousarray(value.T if entry.transposed else value)


def _merged(model, entry: Entry) -> np.ndarray:
    """The variable's value in float32, LoRA factors merged in: layer.kernel would be in the compute precision."""
    value = np.asarray(_variable(model, entry.path).numpy()).astype(np.float32, copy=False)
    *layers, name = entry.path.split("/")
    layer = _layer(model, layers)
    if name == "kernel" and layer.lora_enabled:
        factors = (np.asarray(factor.numpy()) for factor in (layer.lora_kernel_a, layer.lora_kernel_b))
        value = value + layer.lora_alpha / layer.lora_rank * np.matmul(*factors)
    return value


def copy(source, target) -> None:
    """Gives a built model the weights of another of its kind, LoRA factors merged in."""
    for entry in weight_table(source.architecture, head=hasattr(source, "classifier")):
        _variable(target, entry.path).assign(_merged(source, entry))
