"""Signs in a run's curves that it learnt its training texts by heart, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.evaluation.metrics import headline, number_text

# A loss that has risen by less may have done so by chance.
RISE = 1.1
# Points between training and validation that are worth a word; training is measured with dropout, while it learns.
GAP = 0.1


def signs(records: Sequence[Mapping[str, Any]], *, best_step: int, best_metric: str = "") -> list[str]:
    """Sentences, none where nothing speaks for it.

    Args:
        records: of metrics.jsonl; loss is that of answers that are not calibrated yet.
        best_step: of the checkpoint that is kept.
        best_metric: by which it is the best, as train.best_metric has it.
    """
    records = [one for one in records if "loss" in one]  # one of skipped steps alone has none
    validations = [one for one in records if one["split"] == "validation" and one["step"] > 0]
    trained = [one for one in records if one["split"] == "train"]
    if not validations or not trained:
        return []
    found = [_rise(validations, trained), _gap(validations, trained, best_step)]
    last, at_best = validations[-1], [one for one in validations if one["step"] == best_step]
    if at_best and best_step < last["step"]:
        found.append(
            f"Validation was best at step {best_step} ({_told(at_best[0], best_metric)}) and ended at "
            f"{_told(last, best_metric)} at step {last['step']}: the training after the best did not help."
        )
    return [sentence for sentence in found if sentence]


def _told(record: Mapping[str, Any], metric: str) -> str:
    return f"{metric.replace('_', ' ')} {number_text(record.get(metric))}" if metric else headline(record)


def _rise(validations: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]]) -> str:
    least = min(validations, key=lambda one: one["loss"])
    last, before = validations[-1], [one for one in trained if one["step"] <= least["step"]]
    if not before or last["loss"] < RISE * least["loss"] or trained[-1]["loss"] >= before[-1]["loss"]:
        return ""
    return (
        f"The loss on validation was least at step {least['step']} ({least['loss']:.3f}) and rose to "
        f"{last['loss']:.3f} by step {last['step']}, while that of training went on falling, from "
        f"{before[-1]['loss']:.3f} to {trained[-1]['loss']:.3f}: the model became surer of its training texts than of "
        "others."
    )


def _gap(validations: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]], best_step: int) -> str:
    at_best = [one for one in validations if one["step"] == best_step]
    before = [one for one in trained if one["step"] <= best_step]
    if not at_best or not before or "accuracy" not in at_best[0] or "accuracy" not in before[-1]:
        return ""
    ours, theirs = before[-1]["accuracy"], at_best[0]["accuracy"]
    if ours - theirs < GAP:
        return ""
    return (
        f"Accuracy in training was {ours:.1%} when that on validation was {theirs:.1%}: up to "
        f"{100 * (ours - theirs):.0f} points of it may be of texts that were learnt by heart. More examples, more "
        "dropout or fewer epochs may help."
    )
