"""The one table between Hugging Face tensor names and Keras variables."""

import dataclasses
from collections.abc import Iterator

from tf_finetune.bert.architecture import BertArchitecture


@dataclasses.dataclass(frozen=True)
class Entry:
    """One Keras variable and the tensors it is made of.

    Attributes:
        path: the variable's path, the model's own name left out.
        tensors: Hugging Face names; more than one are joined along the variable's last axis.
        shape: of each of the tensors, in PyTorch's layout.
        transposed: PyTorch stores a dense kernel as (out, in), Keras as (in, out).
    """

    path: str
    tensors: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool = False


def weight_table(architecture: BertArchitecture, *, head: bool) -> Iterator[Entry]:
    """Every weight of the model. Names are those of PyTorch's BertForSequenceClassification."""
    hidden, intermediate = architecture.hidden_size, architecture.intermediate_size
    tables = {
        "word_embeddings": architecture.vocab_size,
        "position_embeddings": architecture.max_position_embeddings,
        "token_type_embeddings": architecture.type_vocab_size,
    }
    for table, rows in tables.items():
        yield Entry(f"bert/embeddings/{table}/embeddings", (f"bert.embeddings.{table}.weight",), (rows, hidden))
    yield from _layer_norm("bert/embeddings/layer_norm", "bert.embeddings.LayerNorm", hidden)
    for index in range(architecture.num_hidden_layers):
        block, hf = f"bert/layer_{index}", f"bert.encoder.layer.{index}"
        qkv = (f"{hf}.attention.self.{name}" for name in ("query", "key", "value"))
        yield from _dense(f"{block}/attention/qkv", *qkv, shape=(hidden, hidden))
        yield from _dense(f"{block}/attention/output_dense", f"{hf}.attention.output.dense", shape=(hidden, hidden))
        yield from _layer_norm(f"{block}/attention_layer_norm", f"{hf}.attention.output.LayerNorm", hidden)
        yield from _dense(f"{block}/intermediate", f"{hf}.intermediate.dense", shape=(intermediate, hidden))
        yield from _dense(f"{block}/output_dense", f"{hf}.output.dense", shape=(hidden, intermediate))
        yield from _layer_norm(f"{block}/output_layer_norm", f"{hf}.output.LayerNorm", hidden)
    yield from _dense("bert/pooler", "bert.pooler.dense", shape=(hidden, hidden))
    if head:
        yield from _dense("classifier", "classifier", shape=(architecture.num_labels, hidden))


def _dense(path: str, *tensors: str, shape: tuple[int, int]) -> Iterator[Entry]:
    yield Entry(f"{path}/kernel", tuple(f"{tensor}.weight" for tensor in tensors), shape, transposed=True)
    yield Entry(f"{path}/bias", tuple(f"{tensor}.bias" for tensor in tensors), shape[:1])


def _layer_norm(path: str, tensor: str, hidden: int) -> Iterator[Entry]:
    yield Entry(f"{path}/gamma", (f"{tensor}.weight",), (hidden,))
    yield Entry(f"{path}/beta", (f"{tensor}.bias",), (hidden,))
