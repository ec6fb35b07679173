"""`tf-finetune predict`: one answer a text."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_finetune import devices, runtime
from tf_finetune.commands import second_process
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.serving.export import check_platform, description, newest
from tf_finetune.workdir import check_manifest

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier
    from tf_finetune.evaluation.explanation import Explanation
    from tf_finetune.serving.exported import Exported

# Texts read before any is answered: enough to batch by length, little enough to stream.
CHUNK = 1024
TEXTS = "texts from standard input, one a line"


def predict(
    workdir: str | Path,
    texts: Iterable[str | tuple[str, str]],
    config: ExperimentConfig | None = None,
    *,
    explain: bool = False,
) -> Iterator[dict[str, Any]]:
    """Classifies texts in float32, in their order.

    Args:
        workdir: of a training run.
        texts: read as they are needed, so a stream may be of any length; pairs, if the model was trained on pairs.
        config: the run's config with another train.eval_batch_size; None means the run's own.
        explain: say why, too, which takes far longer.

    Yields:
        What `evaluation.classifier.Classifier.answers` says of each text: `{"text", "label", "score",
        "probabilities": {name: p}}` where a label is one class. With `explain` also "explanation", an
        `evaluation.explanation.Explanation` as a dict.

    Raises:
        InputError: no trained model there, or texts for a model of pairs or the other way round.
    """
    if explain:
        explained = explained_answers(workdir, texts, config)
        return (answer | {"explanation": explanation.to_dict()} for answer, explanation in explained)
    folder, config = trained_run("predict", workdir, config)
    pairs = bool(config.data.text_pair_column)
    return _answers(texts, lambda: load_classifier(folder, config), pairs=pairs)


def explained_answers(
    workdir: str | Path, texts: Iterable[str | tuple[str, str]], config: ExperimentConfig | None = None
) -> "Iterator[tuple[dict[str, Any], Explanation]]":
    """The answers of `predict`, each with why it is so.

    Raises:
        InputError: as for `predict`; or Keras is on JAX.
    """
    if second_process.is_needed():
        expected = "KERAS_BACKEND=tensorflow before Keras is imported, or `tf-finetune predict --explain`"
        raise InputError("explanations are computed on TensorFlow", where="Keras", expected=expected, got="JAX")
    folder, config = trained_run("predict", workdir, config)
    pairs = bool(config.data.text_pair_column)
    return _answers(texts, lambda: _Explaining(load_classifier(folder, config)), pairs=pairs)


class _Explaining:
    """Answers as a classifier does, in pairs of answer and explanation."""

    def __init__(self, classifier: "Classifier"):
        self.classifier = classifier

    def answers(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> "Iterator[tuple[dict[str, Any], Explanation]]":
        logits = self.classifier.logits(texts, pairs)
        explainer = self.classifier.explainer
        labels = explainer.labels_of(logits)
        explanations = explainer.explanations(texts, pairs, labels=labels)
        return zip(self.classifier.answers_of(logits, texts, pairs), explanations, strict=True)


def predict_with_export(saved_model: str | Path, texts: Iterable[str | tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """The same answers from an export, as TensorFlow Serving would give them; neither workdir nor checkpoint is needed.

    Args:
        saved_model: a version, or a folder of versions, of which the newest is taken.
        texts: as in `predict`.

    Raises:
        InputError: no export there or a damaged one, or texts for a model of pairs or the other way round.
    """
    check_platform("predict")
    folder = newest(Path(saved_model).expanduser())
    pairs = takes_pairs(folder)
    check_manifest(folder, what="an export")
    return _answers(texts, lambda: _exported(folder), pairs=pairs)


def takes_pairs(saved_model: str | Path) -> bool:
    """Whether an export classifies pairs of texts."""
    return description(newest(Path(saved_model).expanduser())).task.pairs


def _exported(folder: Path) -> "Exported":
    runtime.import_tensorflow_quietly()
    devices.disable_reduced_float32()
    from tf_finetune.serving.exported import Exported

    return Exported(folder)


def _answers(
    texts: Iterable[str | tuple[str, str]], load: "Callable[[], Classifier | Exported | _Explaining]", *, pairs: bool
) -> Iterator[Any]:
    texts = _checked(texts, pairs=pairs)
    chunk = list(islice(texts, CHUNK))  # a file's faults show before TensorFlow is imported
    classifier = load()
    while chunk:
        yield from classifier.answers(*(map(list, zip(*chunk, strict=True)) if pairs else [chunk]))
        chunk = list(islice(texts, CHUNK))


def _checked(texts: Iterable[str | tuple[str, str]], *, pairs: bool) -> Iterator[str | tuple[str, str]]:
    expected = "(text, text_pair), as the model was trained on pairs" if pairs else "a string"
    for text in texts:
        if (isinstance(text, tuple) and len(text) == 2) != pairs:
            raise InputError("not what the model reads", where="texts", expected=expected, got=repr(text)[:60])
        yield text


def read_texts(path: str | None, config: ExperimentConfig) -> Iterator[str | tuple[str, str]]:
    """The texts or pairs of a file, or the lines of standard input where there is none."""
    pair_column = config.data.text_pair_column
    if path is not None and pair_column:
        return sources.pairs(Path(path).expanduser(), config.data.text_column, pair_column)
    if path is not None:
        return sources.texts(Path(path).expanduser(), config.data.text_column)
    if sys.stdin.isatty():
        what = "pairs of texts from standard input, one a line with a tab between" if pair_column else TEXTS
        print(f"reading {what}; Ctrl-D ends them", file=sys.stderr)
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    lines = (line.rstrip("\n") for line in sys.stdin)
    if not pair_column:
        return lines
    return (sources.pair_of(line, f"standard input line {number}") for number, line in enumerate(lines, 1))


def given_texts(arguments: Sequence[str], config: ExperimentConfig) -> list[str | tuple[str, str]]:
    """The texts of the command line; two arguments are a pair.

    Raises:
        InputError: one text of a pair is missing.
    """
    if not config.data.text_pair_column:
        return list(arguments)
    if len(arguments) % 2:
        expected = "TEXT TEXT_PAIR, as the model was trained on pairs"
        raise InputError("a text without its pair", expected=expected, got=repr(arguments[-1]))
    return list(zip(arguments[::2], arguments[1::2], strict=True))
