"""`tf-finetune compare RUN OTHER`: may the second run's model take the place of the first one's?"""

import dataclasses
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune import json_files, runtime, settings
from tf_finetune.commands import measurements
from tf_finetune.commands.evaluate import load_splits
from tf_finetune.commands.restore import CHANGEABLE, load_classifier, trained_run
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.errors import Found, InputError
from tf_finetune.evaluation import paired
from tf_finetune.evaluation.metric_intervals import difference_intervals
from tf_finetune.evaluation.metrics import LOWER_IS_BETTER, metrics_of, number_text
from tf_finetune.workdir import Workdir

if TYPE_CHECKING:
    from tf_finetune.data.examples import Examples
    from tf_finetune.evaluation.classifier import Classifier

# Texts that are timed, and how often each model answers them, in turn.
TIMED_TEXTS, ROUNDS = 256, 5


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        workdir: of its run.
        checkpoint: its folder.
        classifier: its model.
        logits: float32 (examples, num_labels), the labels in the order of the first one.
    """

    workdir: Path
    checkpoint: Path
    classifier: "Classifier"
    logits: np.ndarray


def compare(
    workdir: str | Path, other: str | Path, config: ExperimentConfig | None = None, *, margin: float | None = None
) -> dict[str, Any]:
    """Asks the best checkpoints of two runs about the same examples, in float32.

    Args:
        workdir: of the run whose model is in place.
        other: of the run whose model may take its place.
        config: the first run's config, with another data.source that both are measured on whole, or with other
            data.slice_columns; None means the test split of both runs (else validation), which has to be the same.
        margin: how much worse the other may be at most in accuracy (F1 of several labels, mean absolute error of
            numbers), which the interval has to rule out; None means that it only must not be worse beyond chance.

    Returns:
        examples, split, source; metrics, by name: before, after, difference and its 95% interval; overall and slices,
        as `evaluation.paired` has them; size and speed of both; reasons against it, and "passes" if there is none.

    Raises:
        InputError: no trained model there, other labels, or other examples.
    """
    _, config = trained_run("compare", workdir, config)
    (split, examples, labels), before, after = _answers(workdir, other, config)
    kind = before.classifier.problem_type
    scores = [measurements.scores_of(side.logits, labels, kind) for side in (before, after)]
    overall = paired.change(*scores)
    measured = measurements.Measured(examples, before.classifier.tokenize(examples).lengths, labels, before.logits)
    masks = measurements.masks_of(measured, before.classifier, settings.slice_columns(config))
    slices = paired.slice_changes(*scores, masks)
    metrics = _metrics(before.logits, after.logits, labels, kind)
    main = measurements.main_metric(kind)
    reasons = paired.refused(overall, slices, _least_gain(metrics[main], main), margin)
    return {
        "split": split,
        "examples": len(labels),
        "metrics": metrics,
        "overall": dataclasses.asdict(overall),
        "slices": [dataclasses.asdict(one) for one in slices],
        "size": {"before": _size(before), "after": _size(after)},
        "texts_per_second": _speed(before, after, examples),
        "margin": margin,
        "reasons": reasons,
        "passes": not reasons,
    }


def run(
    workdir: str | Path,
    other: str | Path,
    config: ExperimentConfig | None = None,
    *,
    margin: float | None = None,
    json_file: str | Path | None = None,
) -> None:
    """Prints what came of it, and writes it as JSON where a file is named.

    Raises:
        Found: the other model shall not take the place.
        InputError: what `compare` raises.
    """
    found = compare(workdir, other, config, margin=margin)
    if json_file is not None:
        json_files.write(Path(json_file).expanduser(), found)
    for line in _lines(found, str(workdir), str(other)):
        runtime.say(line)
    if not found["passes"]:
        raise Found(f"{other} shall not take the place of {workdir}")


def _answers(
    workdir: str | Path, other: str | Path, config: ExperimentConfig
) -> tuple[tuple[str, "Examples", np.ndarray], Side, Side]:
    """The examples with their labels, and what both models say of them."""
    folder, config = trained_run("compare", workdir, config)
    theirs_folder, theirs = trained_run("compare", other, None)
    trained = settings.load_json(Workdir(workdir).config)
    asked = {name: value for name, value in settings.fields(config) if name in CHANGEABLE["compare"]}
    if config.data.source == trained.data.source:  # each run's own data, which has to be the same
        asked = {name: value for name, value in asked.items() if not name.startswith("data.")}
        asked["data.slice_columns"] = config.data.slice_columns
    theirs = settings.with_values(theirs, asked)
    ours = load_splits(config, folder, Workdir(workdir))
    split = "test" if "test" in ours else "validation"
    examples = ours[split]
    before, after = load_classifier(folder, config), load_classifier(theirs_folder, theirs)
    order = _label_order(before, after, other)
    _check_same(examples, load_splits(theirs, theirs_folder, Workdir(other)).get(split), split, other)
    tokenized = before.tokenize(examples)
    sides = (
        Side(Path(workdir), folder, before, before.logits_of(tokenized)),
        Side(Path(other), theirs_folder, after, after.logits_of(after.tokenize(examples))[:, order]),
    )
    return (split, examples, tokenized.labels), *sides


def _label_order(before: "Classifier", after: "Classifier", other: str | Path) -> list[int]:
    """Where the other model has the labels of the first."""
    ours, theirs = before.label_names, after.label_names
    if sorted(ours) != sorted(theirs) or before.problem_type is not after.problem_type:
        expected, got = (f"{each.problem_type.value}: {', '.join(each.label_names[:20])}" for each in (before, after))
        raise InputError("the runs have other labels", where=other, expected=expected, got=got)
    return [theirs.index(name) for name in ours]


def _check_same(examples: "Examples", theirs: "Examples | None", split: str, other: str | Path) -> None:
    if theirs is not None and examples.texts == theirs.texts and examples.text_pairs == theirs.text_pairs:
        return
    got = "none" if theirs is None else f"{len(theirs)} examples, other ones"
    expected = f"the {split} split of the first run, {len(examples)} examples; or --config.data.source=FILE for both"
    raise InputError("the runs were not measured on the same examples", where=other, expected=expected, got=got)


def _metrics(before: np.ndarray, after: np.ndarray, labels: np.ndarray, kind: ProblemType) -> dict[str, dict[str, Any]]:
    """Each metric of both, the difference, and its interval."""
    old, new = metrics_of(before, labels, kind), metrics_of(after, labels, kind)
    intervals = difference_intervals(before, after, labels, kind)
    return {
        name: {
            "before": old[name],
            "after": new[name],
            "difference": new[name] - old[name],
            "interval": intervals[name],
        }
        for name in intervals
        if old[name] is not None and new[name] is not None
    }


def _least_gain(metric: dict[str, Any], name: str) -> float:
    """The lower end of how much better the second model may be."""
    low, high = metric["interval"]
    return -high if name in LOWER_IS_BETTER else low


def _size(side: Side) -> dict[str, int]:
    files = side.checkpoint.glob("*.safetensors")
    stored = sum(path.stat().st_size for path in files if path.name != "training_state.safetensors")
    return {"weights": side.classifier.model.count_params(), "bytes": stored}


def _speed(before: Side, after: Side, examples: "Examples") -> dict[str, float]:
    """Texts a second of both, tokenised and answered in turn; the median of some rounds, after one for nothing."""
    few = examples.drawn(TIMED_TEXTS, 0)
    texts, pairs = list(few.texts), None if few.text_pairs is None else list(few.text_pairs)
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    for number in range(ROUNDS + 1):
        for name, side in (("before", before), ("after", after)):
            began = time.perf_counter()
            side.classifier.logits(texts, pairs)
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: len(texts) / statistics.median(of_side) for name, of_side in seconds.items()}


def _lines(found: dict[str, Any], workdir: str, other: str) -> list[str]:
    """The table for a terminal, what got worse, and the verdict."""
    lines = [f"{found['examples']} examples of {found['split']}; before: {workdir}, after: {other}"]
    lines.append(f"{'metric':<22}{'before':>9}{'after':>9}{'change':>9}  95% interval")
    for name, one in found["metrics"].items():
        low, high = one["interval"]
        before, after = number_text(one["before"]), number_text(one["after"])
        lines.append(f"{name:<22}{before:>9}{after:>9}{one['difference']:>+9.4f}  {low:+.4f} to {high:+.4f}")
    overall = found["overall"]
    lines.append(f"answers won {overall['better']}, lost {overall['worse']}")
    size, speed = found["size"], found["texts_per_second"]
    lines.append(
        f"weights {size['before']['weights']:,} and {size['after']['weights']:,}; "
        f"texts a second {speed['before']:.0f} and {speed['after']:.0f}, {speed['after'] / speed['before']:.2f} times"
    )
    if found["passes"]:
        return [*lines, f"{other} may take the place of {workdir}"]
    return [*lines, *(f"  {reason}" for reason in found["reasons"]), f"{other} shall not take the place of {workdir}"]
