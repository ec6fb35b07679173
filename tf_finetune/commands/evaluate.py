"""`tf-finetune evaluate`: how good the best checkpoint is on validation and test."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_finetune import json_files, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.evaluation.metrics import classification_metrics
from tf_finetune.workdir import Workdir

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

SPLITS = ("validation", "test")
COLUMNS = ("examples", "accuracy", "precision", "recall", "f1", "roc_auc", "loss")


def evaluate(workdir: str | Path, config: ExperimentConfig | None = None) -> dict[str, dict[str, Any]]:
    """Evaluates in float32, prints a table and writes workdir/evaluation.json.

    Args:
        workdir: of a training run.
        config: the run's config with another data source, of which a single file is measured whole; None
            means the run's own.

    Returns:
        For each split its source, the labels in order and `evaluation.metrics.classification_metrics`.

    Raises:
        InputError: no trained model there, or data that cannot be read.
    """
    folder, config = trained_run("evaluate", workdir, config)
    splits = _load_splits(config, folder, Workdir(workdir))
    results = measure(load_classifier(folder, config), splits, source=config.data.source)
    json_files.write(Workdir(workdir).evaluation, results)
    return results


def measure(classifier: "Classifier", splits: dict[str, sources.Examples], *, source: str) -> dict[str, dict[str, Any]]:
    """Metrics of validation and test, by split and printed as a table."""
    results = {}
    for name in (name for name in SPLITS if name in splits):
        metrics = classification_metrics(classifier.logits(splits[name]), splits[name].labels)
        results[name] = {"source": source, "labels": list(classifier.label_names), **metrics}
    _print_table(results, classifier.label_names)
    return results


def _load_splits(config: ExperimentConfig, checkpoint: Path, run: Workdir) -> dict[str, sources.Examples]:
    """The splits to measure, labelled in the model's order."""
    options = settings.source_options(config)
    other_data = config.data.source != settings.load_json(run.config).data.source
    if other_data:
        options["validation_examples"] = 0  # how the run's own data was split says nothing of these
    label_names = BertArchitecture.from_folder(checkpoint).id2label
    splits = sources.load(**options, label_names=label_names, whole_file=other_data)
    for note in splits.notes:
        print(f"note: {note}")
    if not set(SPLITS) & set(splits.examples):
        raise InputError(
            "nothing to evaluate",
            where=config.data.source,
            expected="a validation or test split",
            got=", ".join(splits.examples),
        )
    return splits.examples


def _print_table(results: dict[str, dict[str, Any]], label_names: tuple[str, ...]) -> None:
    print("split".ljust(12) + "".join(column.rjust(11) for column in COLUMNS))
    for split, numbers in results.items():
        cells = (numbers[column] for column in COLUMNS)
        print(split.ljust(12) + "".join(_cell(value).rjust(11) for value in cells))
    meaning = f"of {label_names[1]!r}" if len(label_names) == 2 else "the mean over the labels (macro)"
    print(f"precision, recall, f1: {meaning}")
    for split, numbers in results.items():
        print(f"confusion matrix, {split} (rows: true, columns: predicted)")
        width = max(8, *(len(name) + 2 for name in label_names))
        print(" " * width + "".join(name.rjust(width) for name in label_names))
        for name, counts in zip(label_names, numbers["confusion_matrix"], strict=True):
            print(name.rjust(width) + "".join(str(count).rjust(width) for count in counts))


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
