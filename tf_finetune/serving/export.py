"""Checkpoint -> SavedModel with a raw-text and a token signature."""

import importlib.util
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune.errors import InputError, RunError
from tf_finetune.serving.graph import text_signature, token_signature

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


def save_model(classifier: "Classifier", folder: Path, *, pairs: bool = False) -> None:
    """Writes a SavedModel that answers for raw text and for tokens, with the signatures of `serving.graph`.

    Args:
        classifier: a float32 model with its tokenizer.
        folder: an empty folder.
        pairs: whether a text comes with a second one.

    Raises:
        RunError: the tokenizer in the graph would give other ids than the checkpoint's.
    """
    import tensorflow as tf

    from tf_finetune.text.in_graph import InGraphTokenizer

    tokenizer = InGraphTokenizer(
        **classifier.tokenizer.in_graph_options(), max_length=classifier.max_length, truncation=classifier.truncation
    )
    _check_ids(tokenizer, classifier, pairs=pairs)
    serving_default = text_signature(classifier, tokenizer, pairs=pairs)
    tokens = token_signature(classifier)
    # Tracking the Keras model itself would save a graph whose restore op writes to copies: it answers in
    # Python TensorFlow and is dead in TensorFlow Serving. The plain variables restore everywhere.
    module = tf.Module()
    module.weights = [variable.value for variable in classifier.model.variables]
    module.signatures_kept = (serving_default, tokens)
    signatures = {"serving_default": serving_default, "tokens": tokens}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def hostile_texts(pairs: bool) -> tuple[tuple[str, ...], ...]:
    """HOSTILE_TEXTS; of pairs the second ones too, such that each stands on either side once."""
    return (HOSTILE_TEXTS, HOSTILE_TEXTS[1:] + HOSTILE_TEXTS[:1]) if pairs else (HOSTILE_TEXTS,)


def _check_ids(tokenizer, classifier: "Classifier", *, pairs: bool) -> None:
    """Refuses to serve other tokens than were trained on; ids are exact, so nothing can hide a difference."""
    texts = hostile_texts(pairs)
    expected, first_lengths = classifier.encode(*texts)
    if pairs:
        ids, type_ids = tokenizer.encode_pairs(*texts)
        firsts = [types.count(0) for types in type_ids.to_list()]
    else:
        ids, firsts = tokenizer(*texts), None
    if firsts != first_lengths:
        raise RunError("the export would give the tokens of pairs other types than the checkpoint's tokenizer does")
    for text, wanted, got in zip(HOSTILE_TEXTS, expected, ids.to_list(), strict=True):
        if wanted != got:
            raise RunError(
                f"the export would tokenize {text[:40]!r} as {got[:12]}, the checkpoint's tokenizer has {wanted[:12]}"
            )


def versions(export: Path) -> list[int]:
    """The versions published in an export folder, ascending: TensorFlow Serving wants plain integers."""
    if not export.is_dir():
        return []
    return sorted(int(path.name) for path in export.iterdir() if path.is_dir() and path.name.isdecimal())
