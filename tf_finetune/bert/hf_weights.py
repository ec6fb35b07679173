"""One table between Hugging Face tensor names and Keras variables; load and save read nothing else."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tf_finetune.errors import InputError

# Position ids are a constant that PyTorch happened to store; heads of pretraining have no place here.
IGNORED_PREFIXES = ("embeddings.position_ids", "cls.")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One Keras variable and the tensors it is made of.

    Attributes:
        path: the variable's path, the model's own name left out.
        tensors: Hugging Face names; more than one are joined along the variable's last axis.
        transposed: PyTorch stores a dense kernel as (out, in), Keras as (in, out).
    """

    path: str
    tensors: tuple[str, ...]
    transposed: bool = False


def weight_table(num_hidden_layers: int, *, head: bool) -> list[Entry]:
    """Every weight of the model. Names are those of PyTorch's BertForSequenceClassification."""
    entries = [
        Entry(f"bert/embeddings/{table}/embeddings", (f"bert.embeddings.{table}.weight",))
        for table in ("word_embeddings", "position_embeddings", "token_type_embeddings")
    ]
    entries += _layer_norm("bert/embeddings/layer_norm", "bert.embeddings.LayerNorm")
    for index in range(num_hidden_layers):
        keras, hf = f"bert/layer_{index}", f"bert.encoder.layer.{index}"
        entries += _dense(f"{keras}/attention/qkv", *(f"{hf}.attention.self.{n}" for n in ("query", "key", "value")))
        entries += _dense(f"{keras}/attention/output_dense", f"{hf}.attention.output.dense")
        entries += _layer_norm(f"{keras}/attention_layer_norm", f"{hf}.attention.output.LayerNorm")
        entries += _dense(f"{keras}/intermediate", f"{hf}.intermediate.dense")
        entries += _dense(f"{keras}/output_dense", f"{hf}.output.dense")
        entries += _layer_norm(f"{keras}/output_layer_norm", f"{hf}.output.LayerNorm")
    entries += _dense("bert/pooler", "bert.pooler.dense")
    if head:
        entries += _dense("classifier", "classifier")
    return entries


def _dense(path: str, *tensors: str) -> list[Entry]:
    return [
        Entry(f"{path}/kernel", tuple(f"{tensor}.weight" for tensor in tensors), transposed=True),
        Entry(f"{path}/bias", tuple(f"{tensor}.bias" for tensor in tensors)),
    ]


def _layer_norm(path: str, tensor: str) -> list[Entry]:
    return [Entry(f"{path}/gamma", (f"{tensor}.weight",)), Entry(f"{path}/beta", (f"{tensor}.bias",))]


def _paired(model) -> Iterator[tuple[Entry, object]]:
    """Each table entry with the model's variable; the table and the model must name the same weights."""
    variables = {variable.path.split("/", 1)[1]: variable for variable in model.weights if "seed_" not in variable.path}
    table = weight_table(model.architecture.num_hidden_layers, head=hasattr(model, "classifier"))
    if {entry.path for entry in table} != set(variables):
        raise RuntimeError(f"the weight table and the model differ: {set(variables) ^ {e.path for e in table}}")
    return ((entry, variables[entry.path]) for entry in table)


def load(model, folder: Path, *, head: bool = True) -> list[str]:
    """Assigns a checkpoint's tensors to the model's variables, one at a time.

    A prefix `bert.` may be there or not, and LayerNorm may have the names of early checkpoints (gamma and
    beta). The pooler and the classifier may be missing: they then keep their random initial values.

    Args:
        model: built, with an `architecture`.
        folder: of the checkpoint.
        head: whether a stored classifier is loaded, or passed over.

    Returns:
        What was left newly initialised: "pooler", "classifier", both or nothing.

    Raises:
        InputError: no model.safetensors, a file that cannot be read, a tensor missing, left over or of
            another shape.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputError("checkpoint has no weights", where=folder, expected="model.safetensors")
    try:
        with safe_open(path, framework="numpy") as tensors:
            return _assign(model, tensors, path, head=head)
    except SafetensorError as error:
        raise InputError("unreadable weights", where=path, expected="a safetensors file", got=str(error)) from None


def _assign(model, tensors, path: Path, *, head: bool) -> list[str]:
    stored = _by_modern_name(tensors.keys())
    if not (head and hasattr(model, "classifier")):
        stored = {name: old for name, old in stored.items() if not name.startswith("classifier.")}
    optional = {"bert.pooler": "pooler", "classifier": "classifier"}
    new, used = [], set()
    for entry, variable in _paired(model):
        missing = [name for name in entry.tensors if name not in stored]
        if missing:
            part = next((part for start, part in optional.items() if missing[0].startswith(start)), None)
            if part is None:
                raise InputError("checkpoint lacks a tensor", where=path, expected=missing[0])
            new += [part] if part not in new else []
            continue
        variable.assign(_joined(entry, [tensors.get_tensor(stored[name]) for name in entry.tensors], variable, path))
        used.update(entry.tensors)
    ignored = tuple("bert." + start for start in IGNORED_PREFIXES) + IGNORED_PREFIXES
    left = sorted(name for name in set(stored) - used if not name.startswith(ignored))
    if left:
        raise InputError("checkpoint has tensors this model has no place for", where=path, got=", ".join(left[:4]))
    return new


def _by_modern_name(names: list[str]) -> dict[str, str]:
    """Stored names by the table's: the `bert.` prefix added where it lacks, LayerNorm's gamma and beta renamed."""
    prefix = "" if any(name.startswith("bert.") for name in names) else "bert."
    stored = {}
    for name in names:
        modern = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        stored[modern if name.startswith("classifier.") else prefix + modern] = name
    return stored


def _joined(entry: Entry, parts: list[np.ndarray], variable, path: Path) -> np.ndarray:
    value = np.concatenate([part.T if entry.transposed else part for part in parts], axis=-1)
    if value.shape != tuple(variable.shape):
        wanted = list(variable.shape)
        wanted[-1] //= len(parts)
        raise InputError(
            f"tensor {entry.tensors[0]} does not fit the model",
            where=path,
            expected=f"shape {wanted[::-1] if entry.transposed else wanted}",
            got=f"shape {list(parts[0].shape)}",
        )
    return value


def save(model, path: Path) -> None:
    """Writes the model's weights under their Hugging Face names, float32."""
    tensors = {}
    headless = not hasattr(model, "classifier")  # PyTorch's BertModel names its tensors without the prefix
    for entry, variable in _paired(model):
        parts = np.split(np.asarray(variable.numpy()), len(entry.tensors), axis=-1)
        for name, part in zip(entry.tensors, parts, strict=True):
            name = name.removeprefix("bert.") if headless else name
            tensors[name] = np.ascontiguousarray(part.T if entry.transposed else part)
    save_file(tensors, path, metadata={"format": "pt"})
