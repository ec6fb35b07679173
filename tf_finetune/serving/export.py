"""Checkpoint -> SavedModel with a raw-text and a token signature."""

import importlib.util
import platform
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tf_finetune.errors import InputError, RunError
from tf_finetune.serving import warmup
from tf_finetune.serving.graph import text_signature, token_signature
from tf_finetune.serving.questions import HOSTILE_TEXTS, Questions, Task, hostile_texts
from tf_finetune.workdir import MANIFEST, read_manifest, write_manifest

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# What belongs to an export and not to its SavedModel: TensorFlow Serving reads nothing there but warmup requests.
CARD = Path("assets.extra") / "README.md"


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


def describe(saved_model: Path, task: Task, hostile: Questions, *, card: str = "", checkpoint: dict[str, Any]) -> None:
    """Adds what an export says of itself: warmup requests, its card, and the manifest with all that `verify` needs.

    The questions are ours, and none of the user's texts.

    Args:
        saved_model: whole but for this.
        task: what kind of answers it gives.
        hostile: answered by the checkpoint.
        card: what the model is, in Markdown.
        checkpoint: the manifest of the checkpoint.
    """
    warmup.write(saved_model, warmup.requests(hostile))
    (saved_model / CARD).write_text(card, encoding="utf-8")
    facts = {"task": task.to_json(), "questions": hostile.to_json(), "checkpoint": checkpoint["files"]}
    write_manifest(saved_model, **facts)


class Description(NamedTuple):
    """What `describe` wrote; "checkpoint" has the files of the checkpoint."""

    task: Task
    questions: Questions
    checkpoint: dict[str, Any]


def description(saved_model: Path) -> Description:
    """What an export says of itself.

    Raises:
        InputError: nothing, as those of other software, or it is damaged.
    """
    try:
        kept = read_manifest(saved_model)
        return Description(
            Task.from_json(kept["task"]), Questions.from_json(kept["questions"]), dict(kept["checkpoint"])
        )
    except (InputError, ValueError, KeyError, TypeError):
        expected = f"a version that `tf-finetune export` wrote, with a readable {MANIFEST}"
        raise InputError("not an export of this package", where=saved_model, expected=expected) from None


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


def next_version(folder: Path) -> Path:
    """The version to write next. What an export that was killed had not finished is removed: call it under a lock."""
    if folder.is_dir():
        for leftover in folder.iterdir():
            if re.fullmatch(r"\.\d+-\w+", leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)
    return folder / str(max(versions(folder), default=0) + 1)


def newest(folder: Path) -> Path:
    """The newest version in an export folder, or the folder itself where it is a version.

    Raises:
        InputError: neither.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    published = versions(folder)
    if not published:
        expected = "a version that `tf-finetune export` wrote"
        if versions(folder / "export"):
            expected += f", such as {folder / 'export'}"
        got = "a file" if folder.exists() else "no such folder"
        if folder.is_dir():
            got = "a folder with neither saved_model.pb nor numbered versions"
        raise InputError("no export", where=folder, expected=expected, got=got)
    return folder / str(published[-1])
