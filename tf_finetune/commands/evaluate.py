"""`tf-finetune evaluate`: how good the best checkpoint is on validation and test."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_finetune import json_files, runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.commands import continual
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.evaluation.metrics import metrics_of, number_text
from tf_finetune.workdir import Workdir, read_manifest

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

SPLITS = ("validation", "test")
# Those that the kind of labels has.
COLUMNS = (
    "examples",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "f1_macro",
    "roc_auc",
    "pearson",
    "spearman",
    "mean_absolute_error",
    "loss",
)


def evaluate(workdir: str | Path, config: ExperimentConfig | None = None) -> dict[str, dict[str, Any]]:
    """Evaluates in float32, prints a table and writes workdir/evaluation.json.

    Args:
        workdir: of a training run.
        config: the run's config with another data source, of which a single file is measured whole; None
            means the run's own.

    Returns:
        For each split its source, the labels in order and `evaluation.metrics.metrics_of`.

    Raises:
        InputError: no trained model there, or data that cannot be read.
    """
    folder, config = trained_run("evaluate", workdir, config)
    splits = load_splits(config, folder, Workdir(workdir))
    classifier = load_classifier(folder, config)
    trained = settings.load_json(Workdir(workdir).config)
    if config.data == trained.data:
        warn_if_changed(folder, classifier, splits, counts=not config.data.replay)
    results = measure(classifier, splits, source=config.data.source)
    if config.data.source == trained.data.source:
        results |= _of_earlier_run(classifier, config)
    print_table(results, classifier)
    json_files.write(Workdir(workdir).evaluation, results)
    return results


def warn_if_changed(
    checkpoint: Path, classifier: "Classifier", splits: dict[str, sources.Examples], *, counts: bool
) -> bool:
    """Whether the data is not what the run was trained on; it is warned of, too.

    Validation is known by its tokens and labels; of train the number of examples is compared, if it `counts`.
    """
    then = read_manifest(checkpoint).get("data")
    if then is None:  # a checkpoint of an earlier version says nothing of its data
        return False
    changed = counts and len(splits.get("train", ())) != then["train"]["examples"]
    if not changed and "validation" in splits:
        changed = classifier.tokenize(splits["validation"]).digest() != then["validation"]["sha256"]
    if changed:
        runtime.warn("the data has changed since the run was trained, and its splits with it")
    return changed


def measure(classifier: "Classifier", splits: dict[str, sources.Examples], *, source: str) -> dict[str, dict[str, Any]]:
    """Metrics of validation and test, by split."""
    return {name: _measured(classifier, splits[name], source) for name in SPLITS if name in splits}


def _measured(classifier: "Classifier", examples: sources.Examples, source: str) -> dict[str, Any]:
    tokenized = classifier.tokenize(examples)
    metrics = metrics_of(classifier.logits_of(tokenized), tokenized.labels, classifier.problem_type)
    return {"source": source, "labels": list(classifier.label_names), **metrics}


def _of_earlier_run(classifier: "Classifier", config: ExperimentConfig) -> dict[str, dict[str, Any]]:
    """Where the run went on from another run: the other's test split, now and as the other's checkpoint had it."""
    now = continual.old_test(config, classifier)
    if now is None:
        return {}
    theirs = settings.with_values(
        continual.config_of(config.model.checkpoint), {"train.eval_batch_size": config.train.eval_batch_size}
    )
    before = load_classifier(Path(config.model.checkpoint), theirs)
    few, seed = config.data.max_examples or len(now.examples["test"]), config.runtime.seed
    asked = ("old_test", classifier, now), ("old_test_before", before, continual.old_test(config, before))
    return {name: _measured(model, data.examples["test"].drawn(few, seed), now.source) for name, model, data in asked}


def held_out(splits: Collection[str]) -> str:
    """The split that says most of other texts."""
    return "test" if "test" in splits else "validation"


def load_splits(
    config: ExperimentConfig, checkpoint: Path, run: Workdir, *, slices: bool = False
) -> dict[str, sources.Examples]:
    """The splits to measure, labelled in the model's order; `slices` says whether other data than the run's own is read
    with data.slice_columns, too."""
    options, trained = settings.source_options(config), settings.load_json(run.config)
    architecture = BertArchitecture.from_folder(checkpoint)
    options["problem_type"] = ProblemType(architecture.resolved_problem_type)
    # Fewer examples are drawn from the splits of the run, or else validation could be what was trained on.
    options["max_examples"] = trained.data.max_examples
    other_data = config.data.source != trained.data.source
    if other_data:  # how the run's own data was split and weighted says nothing of these
        columns = dataclasses.replace(options["columns"], weight="")
        columns = columns if slices else dataclasses.replace(columns, slices=())
        options |= {"validation_examples": 0, "max_examples": 0, "folds": 0, "fold": 0, "columns": columns}
    splits = sources.load(**options, label_names=architecture.id2label, whole_file=other_data)
    for note in splits.notes:
        print(f"note: {note}")
    if not set(SPLITS) & set(splits.examples):
        raise InputError(
            "nothing to evaluate",
            where=config.data.source,
            expected="a validation or test split",
            got=", ".join(splits.examples),
        )
    if not config.data.max_examples:
        return splits.examples
    few, seed = config.data.max_examples, config.runtime.seed
    return {name: examples.drawn(few, seed) for name, examples in splits.examples.items()}


def compared_examples(config: ExperimentConfig, checkpoint: Path, run: Workdir) -> tuple[sources.Examples, str]:
    """What an export and its checkpoint are both asked: those of test, else of validation, `export.compared_examples`
    at most; and which split it is."""
    splits = load_splits(config, checkpoint, run)
    split = held_out(splits)
    few = config.export.compared_examples or len(splits[split])
    return splits[split].drawn(few, config.runtime.seed), split


def print_table(results: dict[str, dict[str, Any]], classifier: "Classifier") -> None:
    """One line a split, and what else there is to say of each."""
    label_names, problem_type, temperature = classifier.label_names, classifier.problem_type, classifier.temperature
    columns = [name for name in COLUMNS if all(name in numbers for numbers in results.values())]
    width = max(11, *(len(column) + 2 for column in columns))
    first = 2 + max(10, *map(len, results))
    print("split".ljust(first) + "".join(column.rjust(width) for column in columns))
    for split, numbers in results.items():
        print(split.ljust(first) + "".join(number_text(numbers[column]).rjust(width) for column in columns))
    if problem_type is ProblemType.REGRESSION:
        print("loss: the mean squared error")
        return
    if temperature != 1:
        print(f"loss: of probabilities calibrated on validation, logits divided by {temperature:.3f}")
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        print("accuracy: all labels of a text right; precision, recall, f1: all labels of all texts together (micro)")
    else:
        meaning = f"of {label_names[1]!r}" if len(label_names) == 2 else "the mean over the labels (macro)"
        print(f"precision, recall, f1: {meaning}")
    for split, numbers in results.items():
        if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
            _print_counts(split, numbers["confusion_matrix"], numbers["labels"])
        else:
            _print_confusion_matrix(split, numbers["confusion_matrix"], numbers["labels"])


def _print_confusion_matrix(split: str, matrix: list[list[int]], label_names: list[str]) -> None:
    print(f"confusion matrix, {split} (rows: true, columns: predicted)")
    width = max(8, *(len(name) + 2 for name in label_names))
    print(" " * width + "".join(name.rjust(width) for name in label_names))
    for name, counts in zip(label_names, matrix, strict=True):
        print(name.rjust(width) + "".join(str(count).rjust(width) for count in counts))


def _print_counts(split: str, matrices: list[list[list[int]]], label_names: list[str]) -> None:
    """Of several labels a text: a line a label."""
    print(f"labels, {split}")
    width = max(8, *(len(name) + 2 for name in label_names))
    print(" " * width + "".join(name.rjust(10) for name in ("found", "missed", "wrong")))
    for name, ((_, wrong), (missed, found)) in zip(label_names, matrices, strict=True):
        print(name.rjust(width) + "".join(str(count).rjust(10) for count in (found, missed, wrong)))
