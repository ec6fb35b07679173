"""Examples that are likely to have a wrong label: confident learning (Northcutt et al. 2021,
https://arxiv.org/abs/1911.00068) as cleanlab does it, on answers of models that had not seen the example."""

import dataclasses
import importlib.util
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune import csv_files
from tf_finetune.errors import InputError

# Of cleanlab's filters the one that, on synthetic sets of 2 to 10 classes and with a model that is nearly always right,
# takes about as many examples as are wrong and next to none where none are. The probability of the given label then
# orders them as well as any other score.
FILTER, RANKING = "prune_by_noise_rate", "self_confidence"
COLUMNS = ("rank", "where", "text", "given label", "suggested label", "quality")


@dataclasses.dataclass(frozen=True)
class LabelError:
    """An example whose label is likely to be wrong.

    Attributes:
        index: of the example.
        given: its label; of several labels those that it has.
        suggested: what it is more likely to be, alike.
        quality: how far the given label is believed, from 0 (not at all) to 1: its probability; of several labels
            cleanlab's average that counts the least believed most.
    """

    index: int
    given: tuple[int, ...]
    suggested: tuple[int, ...]
    quality: float


@dataclasses.dataclass(frozen=True, eq=False)
class OutOfFold:
    """What out_of_fold.jsonl says of n examples, without their texts.

    Attributes:
        label_names: of all classes.
        probabilities: float64 (n, num_labels).
        labels: int64 (n,) classes, or (n, num_labels) of 0 and 1 where there may be several.
    """

    label_names: tuple[str, ...]
    probabilities: np.ndarray
    labels: np.ndarray


def likely_errors(probabilities: np.ndarray, labels: np.ndarray) -> list[LabelError]:
    """The examples whose label is likely to be wrong, the least believed first.

    The order is what to go by. Their number is no count of errors: a model that is often wrong puts its own mistakes
    among them (bag-of-words regression, right on 78% of the packaged reviews' training split, has 13% of it here).

    Args:
        probabilities: float (n, num_labels) of models that were not trained on the example, finite, between 0 and 1;
            those of an example sum to 1 unless there may be several labels.
        labels: int (n,), or (n, num_labels) of 0 and 1 where there may be several.

    Raises:
        InputError: cleanlab is not installed.
    """
    if importlib.util.find_spec("cleanlab") is None:
        what = "looking for label errors needs cleanlab, not installed here"
        raise InputError(what, expected="pip install 'tf_finetune[audit]'")
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels).astype(np.int64)
    with warnings.catch_warnings():
        # Of a class with one example or none: that one is kept as it is, and nobody can do anything about it.
        warnings.filterwarnings("ignore", message="May not flag all label issues in class", category=UserWarning)
        found = list(_of_several(probabilities, labels) if labels.ndim == 2 else _of_one(probabilities, labels))
    return sorted(found, key=lambda error: error.quality)


def _of_one(probabilities: np.ndarray, labels: np.ndarray) -> Iterator[LabelError]:
    from cleanlab import filter as filters
    from cleanlab import rank

    if len(np.unique(labels)) < 2:  # of which cleanlab can reckon nothing
        return
    # One process: others would be copies of this one, TensorFlow and all.
    is_wrong = filters.find_label_issues(labels, probabilities, filter_by=FILTER, n_jobs=1)
    qualities = rank.get_label_quality_scores(labels, probabilities, method=RANKING)
    for index in np.flatnonzero(is_wrong).tolist():
        suggested = int(probabilities[index].argmax())
        yield LabelError(index, (int(labels[index]),), (suggested,), float(qualities[index]))


def _of_several(probabilities: np.ndarray, labels: np.ndarray) -> Iterator[LabelError]:
    from cleanlab import multilabel_classification

    varying = np.flatnonzero((labels.min(axis=0, initial=1) == 0) & (labels.max(axis=0, initial=0) == 1))
    if not len(varying):
        return
    held = [np.flatnonzero(row).tolist() for row in labels[:, varying]]
    probabilities = probabilities[:, varying]
    is_wrong = np.zeros(labels.shape, bool)
    is_wrong[:, varying] = multilabel_classification.filter.find_multilabel_issues_per_class(
        held, probabilities, filter_by=FILTER, n_jobs=1
    )
    qualities = multilabel_classification.get_label_quality_scores(held, probabilities, method=RANKING)
    for index in np.flatnonzero(is_wrong.any(axis=1)).tolist():
        given, suggested = (
            tuple(np.flatnonzero(row).tolist()) for row in (labels[index], labels[index] ^ is_wrong[index])
        )
        yield LabelError(index, given, suggested, float(qualities[index]))


def review(out_of_fold: Path, table: Path, *, shown: int = 20) -> dict[str, Any]:
    """Looks for label errors in what `cross-validate` wrote, and writes them as a table for somebody to go through.

    Args:
        out_of_fold: out_of_fold.jsonl.
        table: the csv file to write, with COLUMNS, the likeliest error first; safe to open in a spreadsheet.
        shown: how many of the first rows to return.

    Returns:
        JSON-ready: "examples" and "likely_errors", how many; "share" of the former; "table", the path; "rows", the
        first of it, as objects with "rank", "where", "text", "given", "suggested" and "quality", and "text_pair"
        where there is one.

    Raises:
        InputError: cleanlab is not installed, the file cannot be read or is malformed, or it is of a regression.
    """
    answers = read_out_of_fold(out_of_fold)
    errors = likely_errors(answers.probabilities, answers.labels)
    rows = [_row(rank, error, answers.label_names) for rank, error in enumerate(errors, start=1)]
    by_index = {error.index: row for error, row in zip(errors, rows, strict=True)}
    for index, (_, read) in enumerate(_objects(out_of_fold)):
        if index in by_index:
            by_index[index] |= {name: read[name] for name in ("where", "text", "text_pair") if name in read}
    csv_files.write_rows(table, COLUMNS, map(_cells, rows))
    count = len(answers.labels)
    return {
        "examples": count,
        "likely_errors": len(errors),
        "share": len(errors) / count,
        "table": str(table),
        "rows": rows[:shown],
    }


def _row(rank: int, error: LabelError, names: tuple[str, ...]) -> dict[str, Any]:
    given, suggested = (", ".join(names[label] for label in labels) for labels in (error.given, error.suggested))
    return {"rank": rank, "given": given, "suggested": suggested, "quality": error.quality}


def _cells(row: dict[str, Any]) -> list[str | int | float]:
    text = row["text"] if "text_pair" not in row else f"{row['text']}\n{row['text_pair']}"
    return [row["rank"], row["where"], text, row["given"], row["suggested"], round(row["quality"], 6)]


def read_out_of_fold(path: Path) -> OutOfFold:
    """The answers and labels of out_of_fold.jsonl, as `cross-validate` writes it.

    Raises:
        InputError: it cannot be read, a line is malformed, it is of a regression, or it is empty.
    """
    names: tuple[str, ...] = ()
    probabilities, labels, kinds = [], [], set()
    for place, row in _objects(path):
        if "probabilities" not in row and "score" in row:
            expected = "answers of a classifier"
            raise InputError("label errors are looked for among classes", where=place, expected=expected, got="numbers")
        answer = row.get("probabilities")
        names = names or tuple(answer if isinstance(answer, dict) else ())
        if not _is_answer(answer, names):
            expected = f"probabilities of {', '.join(names)}" if names else "probabilities of each class"
            raise InputError("malformed answer", where=place, expected=expected, got=json.dumps(answer)[:100])
        probabilities.append(list(answer.values()))
        true = row.get("true")
        kinds.add(type(true))
        given = true if isinstance(true, list) else [true]
        if len(kinds) > 1 or not all(isinstance(name, str) and name in names for name in given):
            expected = f"one of {', '.join(names)}, or for all examples a list of them"
            raise InputError("malformed label", where=place, expected=expected, got=json.dumps(true)[:100])
        labels.append([int(name in given) for name in names] if isinstance(true, list) else names.index(true))
    if not labels:
        raise InputError("no answers", where=path, expected="out_of_fold.jsonl of `cross-validate`")
    return OutOfFold(names, np.array(probabilities, np.float64), np.array(labels, np.int64))


def _is_answer(answer: Any, names: tuple[str, ...]) -> bool:
    return (
        isinstance(answer, dict)
        and tuple(answer) == names != ()
        and all(type(p) in (int, float) and math.isfinite(p) and 0 <= p <= 1 for p in answer.values())
    )


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place and object, which has a place and a text of its own."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                place = f"{path} line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict) or not all(type(row.get(name)) is str for name in ("where", "text")):
                    expected = "an object with where, true, text and probabilities, as `cross-validate` writes it"
                    raise InputError("malformed line", where=place, expected=expected, got=line[:100])
                yield place, row
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("unreadable answers", where=path, expected="JSON lines in UTF-8", got=str(error)) from None
