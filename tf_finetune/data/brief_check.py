"""The cheap half of check-data on the splits of a training run: one pass over the texts, kept for the next time."""

from collections.abc import Iterator, Mapping
from itertools import repeat
from pathlib import Path

import numpy as np

from tf_finetune.checks import findings
from tf_finetune.checks.row_checks import RowChecks
from tf_finetune.config import ProblemType
from tf_finetune.data import cache, fingerprint
from tf_finetune.data.examples import Examples
from tf_finetune.readers.rows import Label, Row


def lines(examples: Mapping[str, Examples], label_names: tuple[str, ...], problem_type: ProblemType) -> list[str]:
    """What is wrong with the texts of a run, in at most six lines; none if nothing is.

    Args:
        examples: by split.
        label_names: the classes.
        problem_type: what a label is.
    """
    keys = {split: some.key() for split, some in examples.items()}

    def build(_: Path) -> dict[str, list[str]]:
        checks = RowChecks(problem_type)
        for split, some in examples.items():
            for row in _rows(some, label_names, problem_type):
                checks.add(split, row)
        return {"lines": findings.brief(checks.findings(most_rows=1))}

    if not all(keys.values()):
        return build(Path())["lines"]
    key = cache.key_of(kind="brief check", rows=keys, problem_type=problem_type.value, code=fingerprint.code())
    return cache.kept(key, build, what="findings of the data")[1]["lines"]


def _rows(examples: Examples, label_names: tuple[str, ...], problem_type: ProblemType) -> Iterator[Row]:
    pairs = repeat(None) if examples.text_pairs is None else examples.text_pairs
    places = repeat("") if examples.places is None else examples.places
    # Not strict: the stand-ins never end.
    for text, value, pair, place in zip(examples.texts, examples.labels, pairs, places, strict=False):
        yield Row(text, _label(value, label_names, problem_type), pair, 1.0, place)


def _label(value: np.ndarray, label_names: tuple[str, ...], problem_type: ProblemType) -> Label:
    """The label as its source might have it."""
    if problem_type is ProblemType.REGRESSION:
        return str(float(value))
    if problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        return tuple(name for name, is_true in zip(label_names, value, strict=True) if is_true)
    return label_names[int(value)]
