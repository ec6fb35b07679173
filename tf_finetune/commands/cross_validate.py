"""`tf-finetune cross-validate`: one run a fold, each measured on what it was not trained on."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune import json_files, settings
from tf_finetune.commands.evaluate import load_splits
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.commands.train import train
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.errors import InputError
from tf_finetune.evaluation.metrics import metrics_of, number_text
from tf_finetune.workdir import Workdir

if TYPE_CHECKING:
    from tf_finetune.data.examples import Examples
    from tf_finetune.evaluation.classifier import Classifier

FOLDS = 5
RESULT, PREDICTIONS = "cross_validation.json", "out_of_fold.jsonl"


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
        InputError, RunError, Interrupted: as `train` does.
    """
    folds = settings.validated(config).data.folds or FOLDS
    if config.data.fold:
        expected = "0, as all folds are run, or `train` for one of them"
        raise InputError("cross-validation has every fold", where="data.fold", expected=expected, got=config.data.fold)
    root = Workdir(workdir)
    if root.config.exists():
        raise InputError("the folder holds a run", where=root.path, expected="a folder for the runs of all folds")
    with root.locked():
        found, logits, labels = [], [], []
        aside = root.path / f".{PREDICTIONS}"
        for fold in range(folds):
            chosen = settings.with_values(config, {"data.folds": folds, "data.fold": fold})
            print(f"fold {fold + 1} of {folds}", flush=True)
            train(chosen, root.path / f"fold_{fold}", restart=restart, is_process=is_process)
            classifier, examples = _held_out(root.path / f"fold_{fold}")
            answered = classifier.logits_of(tokenized := classifier.tokenize(examples))
            with aside.open("a" if fold else "w", encoding="utf-8") as file:
                rows = _rows(classifier, examples, answered)
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            found.append(metrics_of(answered, tokenized.labels, classifier.problem_type))
            logits.append(answered)
            labels.append(tokenized.labels)
            _forget()
        all_of = np.concatenate(logits), np.concatenate(labels), classifier.problem_type
        result = _summary(found) | {"out_of_fold": metrics_of(*all_of)}
        aside.replace(root.path / PREDICTIONS)
        json_files.write(root.path / RESULT, result)
    _print_table(result)
    print(f"predictions of every training example by the run that had not seen it: {root.path / PREDICTIONS}")
    flag = f"--workdir={shlex.quote(str(root.path / 'fold_0'))}"
    print(f"each fold is a run: tf-finetune evaluate {flag}", flush=True)
    return result


def _held_out(workdir: Path) -> tuple["Classifier", "Examples"]:
    """The best checkpoint of a fold's run, and the fold."""
    folder, config = trained_run("evaluate", workdir, None)
    return load_classifier(folder, config), load_splits(config, folder, Workdir(workdir))["test"]


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


def _forget() -> None:
    """Gives the memory of a finished run back."""
    import keras

    keras.backend.clear_session()


def _summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics by fold, and mean and spread of those that are numbers in all."""
    numbers = {
        name: np.array([metrics[name] for metrics in found], np.float64)
        for name, value in found[0].items()
        if isinstance(value, float) and all(isinstance(metrics[name], float) for metrics in found)
    }
    return {
        "folds": found,
        "mean": {name: float(values.mean()) for name, values in numbers.items()},
        "std": {name: float(values.std(ddof=1)) for name, values in numbers.items()},
    }


def _print_table(result: dict[str, Any]) -> None:
    names = list(result["mean"])
    width = max(11, *(len(name) + 2 for name in names))
    rows = {f"fold {n}": metrics for n, metrics in enumerate(result["folds"])}
    rows |= {"mean": result["mean"], "std": result["std"], "all together": result["out_of_fold"]}
    print(" " * 14 + "".join(name.rjust(width) for name in names))
    for row, metrics in rows.items():
        print(row.ljust(14) + "".join(number_text(metrics[name]).rjust(width) for name in names))
