"""A BERT classifier as an ONNX graph of standard operations: token ids in, logits out."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune.bert.layers import MASKED_SCORE
from tf_finetune.serving.graph import TOKEN_INPUTS

if TYPE_CHECKING:
    import onnx

    from tf_finetune.bert.architecture import BertArchitecture
    from tf_finetune.bert.layers import BertEmbeddings, BertLayer, BertSelfAttention, Dense, LayerNormalization
    from tf_finetune.bert.model import TFBertForSequenceClassification

# The first with LayerNormalization: the older a graph says it is, the more runtimes read it.
OPSET, IR_VERSION = 17, 8


def bert_graph(model: "TFBertForSequenceClassification") -> "onnx.ModelProto":
    """The model as it answers: int32 `input_ids`, `attention_mask`, `token_type_ids` (batch, length), both dimensions
    free, give `logits` float32 (batch, num_labels).

    Activations keep the shape (batch, length, hidden), and GELU is spelt out: onnxruntime then finds what it computes
    in one pass when it loads the graph (bias with GELU, the product of queries and keys with its scale).

    Args:
        model: float32, built, without LoRA factors.
    """
    from onnx import TensorProto, helper

    graph, bert = _Graph(), model.bert
    hidden = _embeddings(graph, bert.embeddings)
    # (batch, 1, 1, length), 0 for a token and MASKED_SCORE for padding
    padding = graph.node("Sub", graph.number(1), graph.node("Cast", TOKEN_INPUTS[1], to=TensorProto.FLOAT))
    masked = graph.node("Mul", padding, graph.number(MASKED_SCORE))
    score_bias = graph.node("Unsqueeze", masked, graph.constant([1, 2]))
    for index, block in enumerate(bert.encoder):
        last = block is bert.encoder[-1]
        hidden = _block(graph, block, hidden, score_bias, bert.architecture, name=f"layer_{index}", first_only=last)
    first = graph.node("Squeeze", hidden, graph.constant([1]))
    pooled = graph.node("Tanh", _dense(graph, bert.pooler, first, "pooler"))
    product = graph.node("MatMul", pooled, graph.weight(model.classifier.kernel, "classifier.weight"))
    graph.node("Add", product, graph.weight(model.classifier.bias, "classifier.bias"), output="logits")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "length"]) for name in TOKEN_INPUTS]
    labels = bert.architecture.num_labels
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])]
    return helper.make_model(
        helper.make_graph(graph.nodes, "bert", inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tf_finetune",
    )


class _Graph:
    """Nodes in the order they compute, and the constants they read."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple, str] = {}

    def node(self, operation: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node and returns the name of its one output."""
        return self.nodes_of(operation, *inputs, outputs=[output or f"{operation}_{len(self.nodes)}"], **attributes)[0]

    def nodes_of(self, operation: str, *inputs: str, outputs: list[str], **attributes: Any) -> list[str]:
        """Adds a node with several outputs."""
        from onnx import helper

        self.nodes.append(helper.make_node(operation, inputs, outputs, name=outputs[0], **attributes))
        return outputs

    def weight(self, variable, name: str) -> str:
        """A variable's value under a name that shows in viewers."""
        from onnx import numpy_helper

        value = np.ascontiguousarray(np.asarray(variable), np.float32)
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        return self._constant(np.float32(value))

    def constant(self, value: int | list[int]) -> str:
        return self._constant(np.array(value, np.int64))

    def _constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(np.asarray(value), self._constants[key]))
        return self._constants[key]


def _embeddings(graph: _Graph, embeddings: "BertEmbeddings") -> str:
    """(batch, length, hidden)."""
    words = graph.weight(embeddings.word_embeddings.embeddings, "word_embeddings")
    types = graph.weight(embeddings.token_type_embeddings.embeddings, "token_type_embeddings")
    positions = graph.weight(embeddings.position_embeddings.embeddings, "position_embeddings")
    hidden = graph.node("Gather", words, TOKEN_INPUTS[0])
    hidden = graph.node("Add", hidden, graph.node("Gather", types, TOKEN_INPUTS[2]))
    length = graph.node("Gather", graph.node("Shape", TOKEN_INPUTS[0]), graph.constant(1))
    # Gathered and not sliced, because int8 comes to the tables of gathers alone.
    numbers = graph.node("Range", graph.constant(0), length, graph.constant(1))
    hidden = graph.node("Add", hidden, graph.node("Gather", positions, numbers))
    return _layer_norm(graph, embeddings.layer_norm, hidden, "embeddings.layer_norm")


def _block(
    graph: _Graph,
    block: "BertLayer",
    hidden: str,
    score_bias: str,
    architecture: "BertArchitecture",
    *,
    name: str,
    first_only: bool,
) -> str:
    """One encoder block on (batch, length, hidden); (batch, 1, hidden) comes out where only the first token, [CLS], is
    asked for."""
    context = _attention(graph, block.attention, hidden, score_bias, f"{name}.attention", first_only=first_only)
    hidden = _first(graph, hidden) if first_only else hidden
    attended = _dense(graph, block.attention.output_dense, context, f"{name}.attention.output")
    hidden = graph.node("Add", attended, hidden)
    hidden = _layer_norm(graph, block.attention_layer_norm, hidden, f"{name}.attention_layer_norm")
    expanded = _dense(graph, block.intermediate, hidden, f"{name}.intermediate")
    expanded = _activation(graph, expanded, architecture.hidden_act)
    output = graph.node("Add", _dense(graph, block.output_dense, expanded, f"{name}.output"), hidden)
    return _layer_norm(graph, block.output_layer_norm, output, f"{name}.output_layer_norm")


def _attention(
    graph: _Graph, attention: "BertSelfAttention", hidden: str, score_bias: str, name: str, *, first_only: bool
) -> str:
    """The contexts, (batch, length or 1, hidden), before the output projection."""
    heads, head_dim = attention.num_heads, attention.head_dim
    qkv = _dense(graph, attention.qkv, hidden, f"{name}.qkv")
    parts = graph.nodes_of("Split", qkv, outputs=[f"{name}.{part}" for part in ("query", "key", "value")], axis=-1)
    by_head = graph.constant([0, 0, heads, head_dim])  # 0 keeps a dimension
    parts[0] = _first(graph, parts[0]) if first_only else parts[0]
    query, key, value = (graph.node("Reshape", part, by_head) for part in parts)
    query = graph.node("Transpose", query, perm=(0, 2, 1, 3))  # (batch, heads, length, head_dim)
    key = graph.node("Transpose", key, perm=(0, 2, 3, 1))  # (batch, heads, head_dim, length)
    value = graph.node("Transpose", value, perm=(0, 2, 1, 3))
    scores = graph.node("Div", graph.node("MatMul", query, key), graph.number(math.sqrt(head_dim)))
    probabilities = graph.node("Softmax", graph.node("Add", scores, score_bias), axis=-1)
    context = graph.node("Transpose", graph.node("MatMul", probabilities, value), perm=(0, 2, 1, 3))
    return graph.node("Reshape", context, graph.constant([0, 0, heads * head_dim]))


def _first(graph: _Graph, hidden: str) -> str:
    """(batch, 1, hidden)."""
    return graph.node("Gather", hidden, graph.constant([0]), axis=1)


def _dense(graph: _Graph, layer: "Dense", inputs: str, name: str) -> str:
    product = graph.node("MatMul", inputs, graph.weight(layer.kernel, f"{name}.weight"))
    return graph.node("Add", product, graph.weight(layer.bias, f"{name}.bias"))


def _layer_norm(graph: _Graph, layer: "LayerNormalization", inputs: str, name: str) -> str:
    gamma, beta = graph.weight(layer.gamma, f"{name}.gamma"), graph.weight(layer.beta, f"{name}.beta")
    return graph.node("LayerNormalization", inputs, gamma, beta, axis=-1, epsilon=layer.epsilon)


def _activation(graph: _Graph, x: str, name: str) -> str:
    """A config.json's `hidden_act`; the names are those of bert.architecture.ACTIVATIONS."""
    if name == "relu":
        return graph.node("Relu", x)
    if name in ("silu", "swish"):
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    if name in ("gelu", "gelu_python"):
        share = graph.node("Erf", graph.node("Div", x, graph.number(math.sqrt(2))))
        return graph.node("Mul", graph.node("Mul", x, graph.node("Add", share, graph.number(1))), graph.number(0.5))
    cubed = graph.node("Mul", graph.node("Pow", x, graph.number(3)), graph.number(0.044715))
    inner = graph.node("Mul", graph.node("Add", x, cubed), graph.number(math.sqrt(2 / math.pi)))
    share = graph.node("Add", graph.node("Tanh", inner), graph.number(1))
    return graph.node("Mul", graph.node("Mul", x, graph.number(0.5)), share)
