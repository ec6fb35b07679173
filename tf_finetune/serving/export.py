"""Checkpoint -> SavedModel with a raw-text and a token signature."""

import importlib.util
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune.errors import InputError, RunError

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# Where tokenizers go astray: every export is asked these, by its ids here and by its answers in verification.
HOSTILE_TEXTS = (
    "The movie was absolutely wonderful, full of joy.",
    "The movie was terrible and boring.",
    "",
    " \t\n ",
    "a",
    "Œuvre naïve, straße, ﬁn… İstanbul ΟΔΥΣΣΕΥΣ",
    "電影很好看 映画は素晴らしい 영화가 좋았다",
    "[MASK] [SEP] literally, and [CLS]",
    "zero\u200bwidth soft\u00adhyphen nul\x00 and \ufffd",
    "emoji 🎬👍🏽 and e\u0301 combined",
    "don't-stop:now!!! (really?) $5.00 #1",
    "x" * 101 + " " + "word " * 600,
)


def has_tensorflow_text() -> bool:
    """Whether tensorflow-text, whose ops tokenize inside an export, is installed."""
    return importlib.util.find_spec("tensorflow_text") is not None


def check_platform(command: str) -> None:
    """Raises InputError where an export can neither be made nor asked."""
    if not has_tensorflow_text():
        raise InputError(
            f"{command} needs tensorflow-text, which is not installed",
            where=f"{platform.system()} on {platform.machine()}",
            expected="Linux or macOS (it has no package for Windows); a copy of the workdir exports there",
        )


def save_model(classifier: "Classifier", folder: Path) -> None:
    """Writes a SavedModel that answers for raw text and for tokens, batches padded to their own longest.

    Signatures:
        serving_default: `text` string [None] -> `label` string [None], `score` float32 [None],
            `probabilities` float32 [None, num_labels].
        tokens: int32 `input_ids`, `attention_mask`, `token_type_ids` [None, None] -> `logits`,
            `probabilities` float32 [None, num_labels].

    Args:
        classifier: a float32 model with its tokenizer.
        folder: an empty folder.

    Raises:
        RunError: the tokenizer in the graph would give other ids than the checkpoint's.
    """
    import tensorflow as tf

    from tf_finetune.text.in_graph import InGraphTokenizer

    tokenizer = InGraphTokenizer(
        **classifier.tokenizer.in_graph_options(), max_length=classifier.max_length, truncation=classifier.truncation
    )
    _check_ids(tokenizer, classifier)
    model, names = classifier.model, tf.constant(classifier.label_names)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serving_default(text):
        ids = tokenizer(text)
        lengths = ids.row_lengths()
        longest = tf.maximum(tf.reduce_max(lengths), 1)  # an empty batch has no longest text
        input_ids = ids.to_tensor(shape=tf.stack([-1, longest]))
        inputs = {"input_ids": input_ids, "attention_mask": tf.sequence_mask(lengths, longest, dtype=tf.int32)}
        logits = model(inputs, training=False)
        probabilities = tf.nn.softmax(logits)
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
            "score": tf.reduce_max(probabilities, axis=-1),
            "probabilities": probabilities,
        }

    token_names = ("input_ids", "attention_mask", "token_type_ids")

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name) for name in token_names])
    def tokens(input_ids, attention_mask, token_type_ids):
        logits = model(input_ids, attention_mask, token_type_ids, training=False)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    # Tracking the Keras model itself would save a graph whose restore op writes to copies: it answers in
    # Python TensorFlow and is dead in TensorFlow Serving. The plain variables restore everywhere.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.signatures_kept = (serving_default, tokens)
    signatures = {"serving_default": serving_default, "tokens": tokens}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _check_ids(tokenizer, classifier: "Classifier") -> None:
    """Refuses to serve other tokens than were trained on; ids are exact, so nothing can hide a difference."""
    expected = classifier.tokenizer.encode(
        HOSTILE_TEXTS, max_length=classifier.max_length, truncation=classifier.truncation
    )
    for text, wanted, got in zip(HOSTILE_TEXTS, expected, tokenizer(HOSTILE_TEXTS).to_list(), strict=True):
        if wanted != got:
            raise RunError(
                f"the export would tokenize {text[:40]!r} as {got[:12]}, the checkpoint's tokenizer has {wanted[:12]}"
            )


def versions(export: Path) -> list[int]:
    """The versions published in an export folder, ascending: TensorFlow Serving wants plain integers."""
    if not export.is_dir():
        return []
    return sorted(int(path.name) for path in export.iterdir() if path.is_dir() and path.name.isdecimal())
