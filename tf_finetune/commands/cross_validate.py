"""`tf-finetune cross-validate`: one run a fold, each measured on what it was not trained on."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune import json_files, runtime, settings
from tf_finetune.commands import continual, several_runs
from tf_finetune.commands.evaluate import load_splits
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.commands.train import train
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.evaluation.metrics import metrics_of, number_text
from tf_finetune.workdir import Workdir

if TYPE_CHECKING:
    from tf_finetune.data.examples import Examples
    from tf_finetune.evaluation.classifier import Classifier

FOLDS = 5
RESULT, PREDICTIONS = "cross_validation.json", "out_of_fold.jsonl"

# Logits, labels and kind of the labels of one fold.
Answered = tuple[np.ndarray, np.ndarray, ProblemType]


def cross_validate(
    config: ExperimentConfig, workdir: str | Path, *, restart: bool = False, is_process: bool = False
) -> dict[str, Any]:
    """Trains and measures each fold in turn; prints a table, and writes cross_validation.json and out_of_fold.jsonl.

    Interrupted, it goes on with the same call: each fold is a run of `train` in a folder of its own.

    Args:
        config: `data.folds` says how many, 0 means 5; `data.fold` is not for this command.
        workdir: gets a folder a fold.
        restart: train every fold anew.
        is_process: as of `train`.

    Returns:
        "folds", the metrics of each; their "mean" and "std" (of a sample); and "out_of_fold", the metrics of all
        predictions together.

    Raises:
        InputError, RunError, Interrupted: as `train` does; and where the data is not what the first fold saw.
    """
    folds = settings.validated(config).data.folds or FOLDS
    several_runs.check(config)
    if config.data.fold:
        expected = "0, as all folds are run, or `train` for one of them"
        raise InputError("cross-validation has every fold", where="data.fold", expected=expected, got=config.data.fold)
    if continual.is_of_run(continual.checkpoint_of(config.model.checkpoint)):
        runtime.warn("model.checkpoint may have been trained on texts of these folds: no fold is unseen then")
    config = settings.with_values(config, {"data.folds": folds})
    plan = {"config": settings.to_dict(config), "rows": _rows_key(config)}
    with several_runs.at_work(Workdir(workdir), plan, is_process=is_process) as root:
        answered = []
        aside = root.path / f".{PREDICTIONS}"
        aside.unlink(missing_ok=True)
        for fold in range(folds):
            print(f"fold {fold} of {folds}", flush=True)
            run = Workdir(root.path / f"fold_{fold}")
            train(settings.with_values(config, {"data.fold": fold}), run.path, restart=restart, is_process=is_process)
            answered.append(_ask(run, aside))
            several_runs.forget_models()
        result = _summary(answered)
        aside.replace(root.path / PREDICTIONS)
        json_files.write(root.path / RESULT, result)
    _print_table(result)
    print(f"what each run says of the training examples it had not seen: {root.path / PREDICTIONS}")
    print(f"each fold is a run: tf-finetune evaluate --workdir={shlex.quote(str(root.path / 'fold_0'))}", flush=True)
    return result


def _rows_key(config: ExperimentConfig) -> str:
    """Stands for the data: were it another for some folds, what they hold out others would have been trained on."""
    return sources.load(**settings.source_options(config)).examples["train"].rows_key


def _ask(run: Workdir, predictions: Path) -> Answered:
    """What the best checkpoint of a fold's run says of the fold; added to the predictions, too."""
    folder, config = trained_run("evaluate", run.path, None)
    classifier, examples = load_classifier(folder, config), load_splits(config, folder, run)["test"]
    tokenized = classifier.tokenize(examples)
    logits = classifier.logits_of(tokenized)
    with predictions.open("a", encoding="utf-8") as file:
        for row in _rows(classifier, examples, logits):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return logits, tokenized.labels, classifier.problem_type


def _rows(classifier: "Classifier", examples: "Examples", logits: np.ndarray) -> Iterator[dict[str, Any]]:
    """What out_of_fold.jsonl says of each example: where it stands, its label, and the answer."""
    answers = classifier.answers_of(logits, examples.texts, examples.text_pairs)
    for place, label, answer in zip(examples.places, examples.labels, answers, strict=True):
        yield {"where": place, "true": _label(label, classifier), **answer}


def _label(label: np.ndarray, classifier: "Classifier") -> str | float | list[str]:
    if classifier.problem_type is ProblemType.REGRESSION:
        return float(label)
    names = classifier.label_names
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return [name for name, holds in zip(names, label, strict=True) if holds]
    return names[label]


def _summary(answered: list[Answered]) -> dict[str, Any]:
    """The metrics by fold and of all folds together, and mean and spread of those that are numbers in each."""
    found = [metrics_of(*one) for one in answered]
    numbers = {
        name: np.array([metrics[name] for metrics in found], np.float64)
        for name in found[0]
        if all(isinstance(metrics[name], float) for metrics in found)
    }
    logits, labels, (kind, *_) = zip(*answered, strict=True)
    return {
        "folds": found,
        "mean": {name: float(values.mean()) for name, values in numbers.items()},
        "std": {name: float(values.std(ddof=1)) for name, values in numbers.items()},
        "out_of_fold": metrics_of(np.concatenate(logits), np.concatenate(labels), kind),
    }


def _print_table(result: dict[str, Any]) -> None:
    names = list(result["mean"])
    width = max(11, *(len(name) + 2 for name in names))
    rows = {f"fold {n}": metrics for n, metrics in enumerate(result["folds"])}
    rows |= {"mean": result["mean"], "std": result["std"], "all together": result["out_of_fold"]}
    print(" " * 14 + "".join(name.rjust(width) for name in names))
    for row, metrics in rows.items():
        print(row.ljust(14) + "".join(number_text(metrics[name]).rjust(width) for name in names))
