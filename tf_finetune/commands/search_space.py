"""What a sweep may try of each config field: `FIELD=LOW..HIGH`, `FIELD=LOW..HIGH,log`, or `FIELD=ONE,OTHER,...`."""

import dataclasses
import enum
import math
import re
from collections.abc import Sequence
from typing import Any

from tf_finetune import settings
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError

FORMS = "FIELD=LOW..HIGH, FIELD=LOW..HIGH,log or FIELD=ONE,OTHER,..."
# They change what is measured, not how well.
INCOMPARABLE = {
    "train.best_metric",
    "data.source",
    "data.label_column",
    "data.max_examples",
    "data.validation_examples",
    "data.folds",
    "data.fold",
}
BOOLS = {"true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers of the field's type from low to high, both included; on a logarithmic scale or not."""

    low: float
    high: float
    log: bool


# By the name of a field; choices are plain values as config.json has them.
SearchSpace = dict[str, Range | tuple[Any, ...]]


def parse(words: Sequence[str]) -> SearchSpace:
    """What each word says of its field.

    Args:
        words: in one of FORMS each.

    Raises:
        InputError: no word, another form, no such field, one field twice, or a value that the field does not take.
    """
    if not words:
        raise InputError("nothing to search", where="--search", expected=FORMS)
    space: SearchSpace = {}
    for word in words:
        name, _, values = word.partition("=")
        settings.check_field(name, where="--search")
        if name in space:
            raise InputError(f"{name} came twice", where="--search", got=word)
        if name in INCOMPARABLE or name.startswith("export."):
            expected = "a field of which each value gives a model to be measured in the same way"
            raise InputError(f"{name} cannot be searched", where="--search", expected=expected, got=word)
        default = dict(settings.fields(ExperimentConfig()))[name]
        is_range = ".." in values and type(default) in (int, float)
        space[name] = _range(word, values, default) if is_range else _choices(word, values, default)
        ends = (space[name].low, space[name].high) if isinstance(space[name], Range) else space[name]
        for value in ends:  # alone, as what it does beside other values is for each trial to see
            settings.check_value(name, typed(value, default))
    return space


def typed(value: Any, default: Any) -> Any:
    """A plain value as the field has it."""
    return type(default)(value) if isinstance(default, enum.Enum | int | float) else value


def _range(word: str, values: str, default: Any) -> Range:
    found = re.fullmatch(r"(?P<low>[^,]+)\.\.(?P<high>[^,]+?)(?P<log>,log)?", values)
    if not found:
        raise InputError("not a range of numbers", where="--search", expected=FORMS, got=word)
    low, high = (_number(word, found[end], default) for end in ("low", "high"))
    if not low < high or (found["log"] and low <= 0):
        expected = "LOW below HIGH, and above 0 where the scale is logarithmic"
        raise InputError("an empty range", where="--search", expected=expected, got=word)
    return Range(low, high, bool(found["log"]))


def _choices(word: str, values: str, default: Any) -> tuple[Any, ...]:
    if not values:
        raise InputError("no values", where="--search", expected=FORMS, got=word)
    return tuple(_choice(word, value, default) for value in values.split(","))


def _choice(word: str, value: str, default: Any) -> Any:
    if isinstance(default, bool):
        if value not in BOOLS:
            raise InputError("neither true nor false", where="--search", got=word)
        return BOOLS[value]
    if isinstance(default, enum.Enum):
        known = [one.value for one in type(default)]
        if value not in known:
            raise InputError("no such value", where="--search", expected=" or ".join(known), got=word)
        return value
    return _number(word, value, default) if isinstance(default, int | float) else value


def _number(word: str, value: str, default: float) -> float:
    try:
        number = type(default)(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        kind = "whole numbers" if isinstance(default, int) else "numbers"
        raise InputError(f"not {kind}", where="--search", expected=FORMS, got=word)
    return number
