"""A trained checkpoint that answers for texts: what evaluate, predict and verify all ask."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_finetune import devices, runtime
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.config import ProblemType, Truncation
from tf_finetune.data.cache import key_of
from tf_finetune.data.examples import Examples
from tf_finetune.data.order import NUM_SHAPES_OF_JAX, PADDING, evaluation_order, shape_set
from tf_finetune.data.pipeline import batches
from tf_finetune.data.tokenized import TokenizedExamples, tokenized
from tf_finetune.evaluation.metrics import THRESHOLD, probabilities_of
from tf_finetune.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tf_finetune.evaluation.explanation import Explainer


class Classifier:
    """Model and tokenizer with the options they were trained with.

    Args:
        model: a TFBertForSequenceClassification.
        tokenizer: its tokenizer.
        max_length: tokens a text or pair, as in training.
        truncation: as in training.
        batch_size: texts computed at once.
        num_shapes: lengths that the batches of a split are padded to at most; 0 means a batch's own longest, and on JAX
            NUM_SHAPES_OF_JAX.
        temperature: what the model's logits have been divided by.
        whole_float32: whether float32 has all its bits on GPUs and TPUs too, on JAX; in training it need not.
    """

    def __init__(
        self,
        model: TFBertForSequenceClassification,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        truncation: Truncation,
        batch_size: int = 64,
        num_shapes: int = 0,
        temperature: float = 1.0,
        whole_float32: bool = False,
    ):
        self.model, self.tokenizer = model, tokenizer
        # XLA compiles anew for every shape of a batch: JAX knows no other way, and gets few of them.
        on_jax = devices.keras_backend() == "jax"
        model.jit_compile = on_jax
        self.max_length, self.truncation = max_length, truncation
        self.num_shapes = num_shapes or (NUM_SHAPES_OF_JAX if on_jax else 0)
        self.batch_size, self.temperature, self.whole_float32 = batch_size, temperature, whole_float32

    @classmethod
    def from_checkpoint(cls, folder: Path, *, temperature: float = 1.0, **options) -> "Classifier":
        """Loads a checkpoint in float32, so that every command gives the same answer.

        Args:
            folder: of the checkpoint.
            temperature: what all logits are divided by: weights and bias of the head are, once, so that whatever is
                made of the model is calibrated, too.
            **options: of the constructor.
        """
        devices.disable_reduced_float32()
        with runtime.precision_policy("float32"):
            model = TFBertForSequenceClassification.from_pretrained(folder)
        if temperature != 1:
            for weight in model.classifier.weights:
                weight.assign(weight / temperature)
        return cls(model, Tokenizer(folder), temperature=temperature, whole_float32=True, **options)

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.model.architecture.id2label

    @property
    def problem_type(self) -> ProblemType:
        return ProblemType(self.model.architecture.resolved_problem_type)

    @functools.cached_property
    def explainer(self) -> "Explainer":
        """What says why an answer is as it is, on TensorFlow; kept, because its graph takes seconds to trace."""
        from tf_finetune.evaluation.explanation import Explainer

        return Explainer(self)

    def tokenize(self, examples: Examples) -> TokenizedExamples:
        """The examples as token ids; those of many texts are kept on disk for the next time."""
        return tokenized(examples, self.encode, key=self._encoding_key)

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> tuple[list[list[int]], list[int] | None]:
        """Token ids of each text or pair, and for pairs how many of them are of type 0."""
        options = {"max_length": self.max_length, "truncation": self.truncation}
        if pairs is None:
            return self.tokenizer.encode(texts, **options), None
        token_ids, type_ids = self.tokenizer.encode_pairs(texts, pairs, **options)
        return token_ids, [types.count(0) for types in type_ids]

    @functools.cached_property
    def _encoding_key(self) -> str:
        """Another one whenever `encode` might give other ids."""
        return key_of(
            tokenizer=self.tokenizer.fast.to_str(),
            max_length=self.max_length,
            truncation=self.truncation.value,
            tokenizers=metadata.version("tokenizers"),
        )

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Logits float32 (texts, num_labels), in the order of the texts."""
        examples = self.tokenize(Examples.unlabelled(texts, pairs))
        on_jax = devices.keras_backend() == "jax"
        return self._predicted(examples, shapes=self._shapes(examples) if on_jax else None)

    def logits_of(
        self, examples: TokenizedExamples, *, callbacks: Sequence[keras.callbacks.Callback] = ()
    ) -> np.ndarray:
        """Logits float32 (examples, num_labels) of a whole split, in the order of the examples.

        Args:
            examples: tokenised.
            callbacks: for Keras's `predict`.
        """
        return self._predicted(examples, shapes=self._shapes(examples), callbacks=callbacks)

    def _shapes(self, examples: TokenizedExamples) -> tuple[int, ...] | None:
        """The lengths that these examples are padded to, if they are few."""
        if not (self.num_shapes and len(examples)):
            return None
        return shape_set(examples.lengths, num_shapes=self.num_shapes, longest=self.max_length)

    def _predicted(
        self,
        examples: TokenizedExamples,
        *,
        shapes: Sequence[int] | None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> np.ndarray:
        logits = np.zeros((len(examples), len(self.label_names)), np.float32)
        if len(examples):
            multiple = devices.replicas_at_work()
            order = evaluation_order(
                examples.lengths, batch_size=self.batch_size, shapes=shapes, rows_multiple_of=multiple
            )
            is_example = order.examples != PADDING
            dataset = batches(examples, order, part=devices.part_at_work())
            if devices.keras_backend() == "tensorflow" and multiple == 1:
                _trace(self.model, dataset.element_spec)
            with devices.whole_float32() if self.whole_float32 else contextlib.nullcontext():
                predicted = self.model.predict(dataset, verbose=0, callbacks=list(callbacks))
            logits[order.examples[is_example]] = predicted[is_example]
        return logits

    def answers(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """An answer for each text or pair, which it repeats as "text" and "text_pair".

        `{"label", "score", "probabilities": {name: p}}` of one class; `{"labels", "probabilities"}` of several
        (multi-label), those of at least THRESHOLD; `{"score"}`, the number itself, of a regression.
        """
        yield from self.answers_of(self.logits(texts, pairs), texts, pairs)

    def answers_of(
        self, logits: np.ndarray, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Those of logits that are at hand."""
        for index, text in enumerate(texts):
            asked = {"text": text} if pairs is None else {"text": text, "text_pair": pairs[index]}
            yield asked | self._answer(logits[index])

    def _answer(self, logits: np.ndarray) -> dict[str, Any]:
        if self.problem_type is ProblemType.REGRESSION:
            return {"score": float(logits[0])}
        probabilities = probabilities_of(logits, self.problem_type)
        named = {name: float(p) for name, p in zip(self.label_names, probabilities, strict=True)}
        if self.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
            return {"labels": [name for name, p in named.items() if p >= THRESHOLD], "probabilities": named}
        best = int(probabilities.argmax())
        return {"label": self.label_names[best], "score": float(probabilities[best]), "probabilities": named}


def _trace(model: keras.Model, element_spec: Any) -> None:
    """Has what `predict` computes traced for batches of every shape; left to itself, TensorFlow traces it for the first
    batch's own and then again."""
    import tensorflow as tf

    model.make_predict_function()
    if not (model.run_eagerly or tf.config.functions_run_eagerly()):
        model.predict_function.get_concrete_function([element_spec])
