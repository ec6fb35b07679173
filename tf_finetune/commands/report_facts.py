"""What a report says of a run beside its answers: what it was made of, its data, its curves, and all in short."""

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_finetune import runtime, settings
from tf_finetune.commands import check_data
from tf_finetune.commands.evaluate import held_out
from tf_finetune.commands.failures import MOST_EXAMPLES
from tf_finetune.commands.measurements import main_metric
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.evaluation import overfitting
from tf_finetune.workdir import Workdir, read_manifest

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# Points of the learning curves that the page shows; metrics.jsonl has all.
MOST_POINTS = 200
OF_FOLDS = "the sizes are those before the folds: one fold is the test split, and not trained on"
OF_REPLAY = "train also had examples of the earlier run (data.replay), which are not counted here"


def of_run(run: Workdir, folder: Path, config: ExperimentConfig, classifier: "Classifier") -> dict[str, Any]:
    """Of the manifest, what says how the checkpoint came about."""
    manifest = read_manifest(folder)
    surroundings = manifest.get("surroundings", {})
    facts = {
        "labels": ", ".join(classifier.label_names),
        "data": config.data.source,
        "started from": manifest.get("base", config.model.checkpoint),
        "weights": f"{classifier.model.count_params():,}",
        "temperature": f"{classifier.temperature:.4g}",
        "seed": str(config.runtime.seed),
        "command": manifest.get("command", ""),
        "trained with": ", ".join(f"{name} {value}" for name, value in surroundings.items()),
    }
    return {
        "name": run.path.resolve().name,
        "version": metadata.version("tf_finetune"),
        "checkpoint": folder.name,
        "is_calibrated": classifier.temperature != 1,
        "problem_type": classifier.problem_type.value,
        "facts": {name: value for name, value in facts.items() if value},
        "config": settings.to_dict(config),
    }


def of_data(config: ExperimentConfig, folder: Path) -> dict[str, Any]:
    """What check-data finds, tokens counted with the checkpoint's own tokenizer."""
    own = settings.with_values(config, {"model.checkpoint": str(folder.absolute())})
    found = check_data.check_data(own, most_rows=MOST_EXAMPLES)
    notes = [*found["notes"], *[OF_FOLDS] * bool(config.data.folds), *[OF_REPLAY] * bool(config.data.replay)]
    names = dict.fromkeys(label for split in found["splits"].values() for label in split["labels"])
    return found | {"labels": list(names), "notes": notes}


def of_training(run: Workdir, folder: Path, best_metric: str) -> dict[str, Any]:
    """The curves, and what they say of the best checkpoint, which is in the folder."""
    records = []
    for number, line in enumerate(_lines(run.metrics), 1):
        record = _record(line)
        if record is None:
            runtime.warn(f"{run.metrics} line {number} is damaged, and left out of the curves")
        else:
            records.append(record)
    signs = overfitting.signs(records, best_step=int(folder.name.removeprefix("step_")), best_metric=best_metric)
    step = -(-len(records) // MOST_POINTS) or 1
    records = [one for number, one in enumerate(records) if one["split"] == "validation" or number % step == 0]
    shown = [name for name in ("loss", "accuracy") if any(name in one for one in records)]
    return {"records": records, "curves": shown, "signs": signs}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _record(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl without its times; None where no run has written it."""
    try:
        record = json.loads(line, parse_constant=float)
        numbers = {name: float(value) for name, value in record.items() if name not in ("split", "timing")}
        split = record["split"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if split not in ("train", "validation") or "step" not in numbers or not all(map(_is_finite, numbers.values())):
        return None
    return {"split": split, **numbers, "step": int(numbers["step"])}


def _is_finite(number: float) -> bool:
    return abs(number) < float("inf")


def summary(facts: dict[str, Any], problem_type: ProblemType, *, changed: bool) -> dict[str, Any]:
    """The first things to read.

    Returns:
        "headline"; "sentences" of numbers alone, which say nothing that is in the data; "of_the_data", those with words
        of it.
    """
    splits, metric = facts["results"]["splits"], main_metric(problem_type)
    name = held_out(splits)
    value, interval = splits[name]["metrics"][metric], splits[name]["intervals"].get(metric)
    spread = f" (95% interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    flatters = ", which chose the checkpoint: the model has no test split" if name == "validation" else ""
    tables = [one for table in facts["slices"]["tables"] for one in table["rows"]]
    worse = [one for one in tables if one["is_worse"]]
    sentences = [
        _before(facts["training"]["records"], splits, metric),
        *facts["training"]["signs"],
        _calibration(splits[name]["reliability"], name),
        f"Worse than elsewhere in {len(worse)} of {len(tables)} slices." if worse else "",
        "The data has changed since the run was trained, and its splits with it." if changed else "",
    ]
    score = facts["slices"]["score"]
    of_the_data = [
        f"Worse where {one['column']} is {one['value']}: {score} {one['score']:.4f}, {one['examples']} examples."
        for one in worse
    ]
    bad = [one["sentence"] for one in facts["data"]["findings"] if one["severity"] != "note"]
    return {
        "headline": f"{name} {metric.replace('_', ' ')} {value:.4f}{spread}{flatters}",
        "sentences": [one for one in sentences if one],
        "of_the_data": [*of_the_data, *(f"In the data: {sentence}." for sentence in bad)],
    }


def _before(records: list[dict[str, Any]], splits: dict[str, Any], metric: str) -> str:
    first = [one for one in records if one["split"] == "validation" and one["step"] == 0]
    if not first or metric not in first[0] or "validation" not in splits:
        return ""
    after = splits["validation"]["metrics"][metric]
    return f"On validation it went from {first[0][metric]:.4f} to {after:.4f} by training."


def _calibration(reliability: dict[str, Any] | None, split: str) -> str:
    if reliability is None:
        return ""
    after, before = reliability["after"]["expected_calibration_error"], reliability["before"]
    then = f", {before['expected_calibration_error']:.1%} before calibration" if before else ""
    return f"Probabilities are {after:.1%} off on average (ECE) on {split}{then}."
