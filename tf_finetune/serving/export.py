"""Checkpoint -> SavedModel with a raw-text and a token signature."""

import importlib.util
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError, RunError
from tf_finetune.evaluation.metrics import THRESHOLD

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
    """Writes a SavedModel that answers for raw text and for tokens, batches padded to their own longest.

    Signatures:
        serving_default: `text` string [None], and `text_pair` the same where pairs are classified -> what `outputs`
            says of the kind of labels.
        tokens: int32 `input_ids`, `attention_mask`, `token_type_ids` [None, None] -> `logits` float32
            [None, num_labels], and `probabilities` the same but for a regression.

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
    model = classifier.model

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name) for name in text_inputs(pairs)])
    def serving_default(*texts):
        ids, type_ids = tokenizer.encode_pairs(*texts) if pairs else (tokenizer(*texts), None)
        lengths = ids.row_lengths()
        longest = tf.maximum(tf.reduce_max(lengths), 1)  # an empty batch has no longest text
        shape = tf.stack([-1, longest])
        inputs = {
            "input_ids": ids.to_tensor(shape=shape),
            "attention_mask": tf.sequence_mask(lengths, longest, dtype=tf.int32),
        }
        if type_ids is not None:
            inputs["token_type_ids"] = type_ids.to_tensor(shape=shape)
        return _answer(model(inputs, training=False), classifier)

    token_names = ("input_ids", "attention_mask", "token_type_ids")

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name) for name in token_names])
    def tokens(input_ids, attention_mask, token_type_ids):
        logits = model(input_ids, attention_mask, token_type_ids, training=False)
        answer = _answer(logits, classifier)
        return {"logits": logits} | {name: answer[name] for name in answer if name == "probabilities"}

    # Tracking the Keras model itself would save a graph whose restore op writes to copies: it answers in
    # Python TensorFlow and is dead in TensorFlow Serving. The plain variables restore everywhere.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.signatures_kept = (serving_default, tokens)
    signatures = {"serving_default": serving_default, "tokens": tokens}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def text_inputs(pairs: bool) -> tuple[str, ...]:
    """The inputs of `serving_default`."""
    return ("text", "text_pair") if pairs else ("text",)


def outputs(problem_type: ProblemType) -> tuple[str, ...]:
    """What `serving_default` answers.

    One class a text: `label` string [None], `score` float32 [None] (its probability) and `probabilities` float32
    [None, num_labels]. Several (multi-label): `labels` string [None, num_labels], "" where a class is not answered,
    and `probabilities`. A number: `score` float32 [None].
    """
    if problem_type is ProblemType.REGRESSION:
        return ("score",)
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return ("labels", "probabilities")
    return ("label", "score", "probabilities")


def _answer(logits, classifier: "Classifier") -> dict:
    import tensorflow as tf

    names = tf.constant(classifier.label_names)
    if classifier.problem_type is ProblemType.REGRESSION:
        return {"score": logits[:, 0]}
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        probabilities = tf.sigmoid(logits)
        return {"labels": tf.where(probabilities >= THRESHOLD, names, ""), "probabilities": probabilities}
    probabilities = tf.nn.softmax(logits)
    return {
        "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        "score": tf.reduce_max(probabilities, axis=-1),
        "probabilities": probabilities,
    }


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
