"""A trained checkpoint that answers for texts: what evaluate, predict and verify all ask."""

import functools
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune import runtime
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.config import Truncation
from tf_finetune.data.cache import key_of
from tf_finetune.data.examples import Examples
from tf_finetune.data.order import evaluation_order
from tf_finetune.data.pipeline import batches
from tf_finetune.data.tokenized import TokenizedExamples, tokenized
from tf_finetune.evaluation.metrics import softmax
from tf_finetune.text.tokenizer import Tokenizer


class Classifier:
    """Model and tokenizer with the options they were trained with.

    Args:
        model: a TFBertForSequenceClassification.
        tokenizer: its tokenizer.
        max_length: tokens a text, as in training.
        truncation: as in training.
        batch_size: texts computed at once.
    """

    def __init__(
        self,
        model: TFBertForSequenceClassification,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        truncation: Truncation,
        batch_size: int = 64,
    ):
        self.model, self.tokenizer = model, tokenizer
        model.jit_compile = False  # XLA would compile anew for every batch length
        self.max_length, self.truncation, self.batch_size = max_length, truncation, batch_size

    @classmethod
    def from_checkpoint(cls, folder: Path, **options) -> "Classifier":
        """Loads a checkpoint in float32, so that every command gives the same answer."""
        runtime.disable_reduced_float32()
        with runtime.precision_policy("float32"):
            model = TFBertForSequenceClassification.from_pretrained(folder)
        return cls(model, Tokenizer(folder), **options)

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.model.architecture.id2label

    def tokenize(self, examples: Examples) -> TokenizedExamples:
        """The examples as token ids; those of many texts are kept on disk for the next time."""
        return tokenized(examples, self._encode, key=self._encoding_key)

    def _encode(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None
    ) -> tuple[list[list[int]], list[int] | None]:
        options = {"max_length": self.max_length, "truncation": self.truncation}
        if text_pairs is None:
            return self.tokenizer.encode(texts, **options), None
        token_ids, type_ids = self.tokenizer.encode_pairs(texts, text_pairs, **options)
        return token_ids, [types.count(0) for types in type_ids]

    @functools.cached_property
    def _encoding_key(self) -> str:
        """Another one whenever `_encode` might give other ids."""
        return key_of(
            tokenizer=self.tokenizer.fast.to_str(),
            max_length=self.max_length,
            truncation=self.truncation.value,
            tokenizers=metadata.version("tokenizers"),
        )

    def logits(self, texts: Sequence[str] | Examples) -> np.ndarray:
        """Logits float32 (texts, num_labels), in the order of the texts."""
        if not len(texts):
            return np.zeros((0, len(self.label_names)), np.float32)
        examples = self.tokenize(texts if isinstance(texts, Examples) else Examples.unlabelled(texts))
        order = evaluation_order(examples.lengths, batch_size=self.batch_size)
        sorted_logits = self.model.predict(batches(examples, order), verbose=0)
        logits = np.empty_like(sorted_logits)
        logits[order.examples] = sorted_logits
        return logits

    def answers(self, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
        """`{"text", "label", "score", "probabilities": {name: p}}` for each text."""
        for text, probabilities in zip(texts, softmax(self.logits(texts)), strict=True):
            best = int(probabilities.argmax())
            named = {name: float(p) for name, p in zip(self.label_names, probabilities, strict=True)}
            yield {
                "text": text,
                "label": self.label_names[best],
                "score": float(probabilities[best]),
                "probabilities": named,
            }
