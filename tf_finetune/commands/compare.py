"""`tf-finetune compare RUN OTHER`: may the second run's model take the place of the first one's?"""

import dataclasses
import math
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune import json_files, runtime, settings
from tf_finetune.commands import measurements
from tf_finetune.commands.evaluate import held_out, load_splits, warn_if_changed
from tf_finetune.commands.measurements import Measured, main_metric, masks_of, scores_of
from tf_finetune.commands.restore import CHANGEABLE, load_classifier, trained_run
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.errors import Found, InputError
from tf_finetune.evaluation import paired
from tf_finetune.evaluation.metric_intervals import difference_intervals
from tf_finetune.evaluation.metrics import LOWER_IS_BETTER, metrics_of, number_text
from tf_finetune.workdir import TRAINING_STATE, Workdir

if TYPE_CHECKING:
    from tf_finetune.data.examples import Examples
    from tf_finetune.evaluation.classifier import Classifier

# Tokens of the texts that are timed, and how often each model answers them, in turn.
TIMED_TOKENS, ROUNDS = 4096, 5


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
        margin: how much worse the other may be at most by the metric (accuracy; F1 of several labels; mean absolute
            error of numbers), which the interval has to rule out; None means that it only must not be worse beyond
            chance.

    Returns:
        JSON-ready: "before" and "after", the workdir, checkpoint, size and speed of each; "source", "split" and
        "examples"; "metrics", by name: before, after, difference and its 95% "interval" (None where there is none);
        "metric", the one that decides; "overall" and "slices", as `evaluation.paired` has them; "margin"; "reasons"
        against the other model, and "passes" if there is none.

    Raises:
        InputError: no trained model there, other labels, other examples, or examples that one of the two was trained
            on; no margin.
    """
    if margin is not None and not 0 <= margin < math.inf:
        raise InputError("not a margin", where="--margin", expected="0 or more", got=margin)
    folder, config = trained_run("compare", workdir, config)
    (split, measured), before, after = _answers(workdir, folder, other, config)
    labels, kind = measured.labels, before.classifier.problem_type
    scores = [scores_of(side.logits, labels, kind) for side in (before, after)]
    overall = paired.change(*scores)
    masks = masks_of(measured, before.classifier, settings.slice_columns(config))
    slices = paired.slice_changes(*scores, masks)
    metrics, metric = _metrics(before.logits, after.logits, labels, kind), main_metric(kind)
    reasons = paired.refused(overall, slices, _gain(metrics[metric], metric), metric=metric, margin=margin)
    _, is_worse = paired.worse_beyond_chance(overall, slices)
    speed = _speed(before, after, measured)
    return {
        "before": _description(before, speed["before"]),
        "after": _description(after, speed["after"]),
        "source": config.data.source,
        "split": split,
        "examples": len(labels),
        "metrics": metrics,
        "metric": metric,
        "overall": dataclasses.asdict(overall),
        "slices": [
            {"column": column, "value": value, **dataclasses.asdict(one), "is_worse": bool(is_worse[column, value])}
            for (column, value), one in slices.items()
        ],
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
    workdir: str | Path, folder: Path, other: str | Path, config: ExperimentConfig
) -> tuple[tuple[str, Measured], Side, Side]:
    """The examples with the first model's answers, and both models."""
    theirs_folder, theirs = trained_run("compare", other, _as_asked(config, workdir, other))
    runs = Workdir(workdir), Workdir(other)
    is_own = config.data.source == settings.load_json(runs[0].config).data.source
    if not is_own:  # a file is measured whole, whatever the runs were trained on
        config, theirs = (settings.with_values(one, {"data.max_examples": 0}) for one in (config, theirs))
    ours, others = (
        load_splits(of_side, checkpoint, run, slices=True)
        for of_side, checkpoint, run in zip((config, theirs), (folder, theirs_folder), runs, strict=True)
    )
    split = held_out(ours)
    before, after = load_classifier(folder, config), load_classifier(theirs_folder, theirs)
    order = _label_order(before, after, other)
    _check_same(ours[split], others.get(split), order, split, other)
    if is_own:
        warn_if_changed(folder, before, ours, counts=not config.data.replay)
    measured = measurements.of(before, ours[split])
    others_logits = after.logits_of(after.tokenize(ours[split]))[:, order]
    return (
        (split, measured),
        Side(Path(workdir), folder, before, measured.logits),
        Side(Path(other), theirs_folder, after, others_logits),
    )


def _as_asked(config: ExperimentConfig, workdir: str | Path, other: str | Path) -> ExperimentConfig:
    """The other run's config, with the data of the first one's where that is not its own.

    Raises:
        InputError: it is what one of the two was trained on.
    """
    _, theirs = trained_run("compare", other, None)
    trained = settings.load_json(Workdir(workdir).config)
    asked = {name: value for name, value in settings.fields(config) if name in CHANGEABLE["compare"]}
    if config.data.source == trained.data.source:  # each run's own data, which has to be the same
        own = {name: value for name, value in asked.items() if not name.startswith("data.")}
        return settings.with_values(theirs, own | {"data.slice_columns": ""})
    if config.data.source == theirs.data.source:
        expected = "a file that neither was trained on"
        raise InputError("the second run was trained on these examples", where="data.source", expected=expected)
    return settings.with_values(theirs, asked | {"data.slice_columns": ""})


def _label_order(before: "Classifier", after: "Classifier", other: str | Path) -> list[int]:
    """Where the other model has the labels of the first."""
    ours, theirs = before.label_names, after.label_names
    if sorted(ours) != sorted(theirs) or before.problem_type is not after.problem_type:
        expected, got = (f"{each.problem_type.value}: {', '.join(each.label_names[:20])}" for each in (before, after))
        raise InputError("the runs have other labels", where=other, expected=expected, got=got)
    return [theirs.index(name) for name in ours]


def _check_same(
    examples: "Examples", theirs: "Examples | None", order: list[int], split: str, other: str | Path
) -> None:
    """Refuses texts that are not the same in both runs, or have other labels in the other's data."""
    same = theirs is not None and examples.texts == theirs.texts and examples.text_pairs == theirs.text_pairs
    if not same:
        got = "none" if theirs is None else f"{len(theirs)} examples, other ones"
        expected = f"the first run's {split} split, {len(examples)} examples; or a --config.data.source=FILE for both"
        raise InputError("the runs were not measured on the same examples", where=other, expected=expected, got=got)
    mine, others = examples.labels, theirs.labels
    if mine.ndim == 2:
        others = others[:, order]
    elif mine.dtype.kind == "i":
        mine = np.array(order)[mine]  # the other's numbers of the same classes
    differ = int((mine != others).reshape(len(mine), -1).any(axis=1).sum())
    if differ:
        expected = "the same labels; or a --config.data.source=FILE for both"
        raise InputError("the same texts have other labels", where=other, expected=expected, got=f"{differ} of them")


def _metrics(before: np.ndarray, after: np.ndarray, labels: np.ndarray, kind: ProblemType) -> dict[str, dict[str, Any]]:
    """Each metric of both, the difference, and its interval."""
    old, new = metrics_of(before, labels, kind), metrics_of(after, labels, kind)
    intervals = difference_intervals(before, after, labels, kind)
    if np.array_equal(before, after):
        intervals = dict.fromkeys(old, [0.0, 0.0]) | intervals
    return {
        name: {
            "before": old[name],
            "after": new[name],
            "difference": new[name] - old[name],
            "interval": intervals.get(name),
        }
        for name in old
        if isinstance(old[name], float) and isinstance(new[name], float)
    }


def _gain(metric: dict[str, Any], name: str) -> list[float] | None:
    """How much better the second model may be, from and to."""
    if metric["interval"] is None:
        return None
    low, high = metric["interval"]
    return [-high, -low] if name in LOWER_IS_BETTER else [low, high]


def _description(side: Side, texts_per_second: float) -> dict[str, Any]:
    files = side.checkpoint.glob("*.safetensors")
    stored = sum(path.stat().st_size for path in files if path.name not in TRAINING_STATE)
    return {
        "workdir": str(side.workdir),
        "checkpoint": side.checkpoint.name,
        "weights": side.classifier.model.count_params(),
        "bytes": stored,
        "texts_per_second": texts_per_second,
    }


def _speed(before: Side, after: Side, measured: Measured) -> dict[str, float]:
    """Texts a second of both, tokenised and answered in turn; the median of some rounds, after one for nothing."""
    few = int(max(1, (np.cumsum(measured.lengths) <= TIMED_TOKENS).sum()))
    examples = measured.examples.take(np.arange(few))
    texts, pairs = list(examples.texts), None if examples.text_pairs is None else list(examples.text_pairs)
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    for number in range(ROUNDS + 1):
        for name, side in (("before", before), ("after", after)):
            began = time.perf_counter()
            side.classifier.logits(texts, pairs)
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: few / statistics.median(of_side) for name, of_side in seconds.items()}


def _lines(found: dict[str, Any], workdir: str, other: str) -> list[str]:
    """The table for a terminal, what got worse, and the verdict."""
    lines = [f"{found['examples']} examples of {found['split']}; before: {workdir}, after: {other}"]
    lines.append(f"{'metric':<22}{'before':>9}{'after':>9}{'change':>9}  95% interval")
    for name, one in found["metrics"].items():
        interval = "{:+.4f} to {:+.4f}".format(*one["interval"]) if one["interval"] else "-"
        before, after = number_text(one["before"]), number_text(one["after"])
        lines.append(f"{name:<22}{before:>9}{after:>9}{one['difference']:>+9.4f}  {interval}")
    overall, before, after = found["overall"], found["before"], found["after"]
    lines.append(f"better in {overall['better']} examples, worse in {overall['worse']}")
    rates = before["texts_per_second"], after["texts_per_second"]
    lines.append(
        f"weights {before['weights']:,} and {after['weights']:,}, {before['bytes'] / 2**20:.0f} and "
        f"{after['bytes'] / 2**20:.0f} MiB; texts a second {rates[0]:.0f} and {rates[1]:.0f}, "
        f"{rates[1] / rates[0]:.2f} times"
    )
    if found["passes"]:
        shown = "not shown to be worse" if found["margin"] is None else f"at most {found['margin']:g} worse"
        return [*lines, f"{other} may take the place of {workdir}: {shown}"]
    return [*lines, *(f"  {reason}" for reason in found["reasons"]), f"{other} shall not take the place of {workdir}"]
