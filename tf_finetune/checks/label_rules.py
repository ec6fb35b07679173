"""What training asks of the labels of a source, told while its rows stream by."""

from tf_finetune.checks.findings import ERROR, Finding, FoundRow, plural
from tf_finetune.checks.seen_rows import SPLITS
from tf_finetune.config import ProblemType
from tf_finetune.readers.rows import Row, classes_of, number_of

REGRESSION = f"model.problem_type={ProblemType.REGRESSION.value}"


class LabelRules:
    """Takes every row under the split it is read from, drawn or not; then says why training would refuse them."""

    def __init__(self, problem_type: ProblemType):
        self._problem_type = problem_type
        self._first: dict[str, dict[str, str]] = {}  # split -> class -> where it is met first
        self._is_list: dict[bool, str] = {}
        self._no_numbers: list[FoundRow] = []

    def add(self, split: str, row: Row) -> None:
        first = self._first.setdefault(split, {})
        if self._problem_type is ProblemType.REGRESSION:
            if number_of(row.label) is None:
                self._no_numbers.append(FoundRow(row.where, split, got=str(row.label)[:60]))
            return
        self._is_list.setdefault(not isinstance(row.label, str), row.where)
        for name in classes_of(row.label, self._problem_type):
            first.setdefault(name, row.where)

    def findings(self, splits: set[str]) -> list[Finding]:
        """What is against the rules.

        Args:
            splits: those that training expects rows in.
        """
        found = [
            Finding("empty_split", ERROR, 1, f"the {split} split has no rows")
            for split in SPLITS
            if split in splits and split not in self._first
        ]
        if self._problem_type is ProblemType.REGRESSION:
            return found + _finding("not_a_number", "{rows} with a label that is no number", self._no_numbers)
        if self._problem_type is not ProblemType.MULTI_LABEL and len(self._is_list) == 2:
            rows = [FoundRow(where, got="a list" if is_list else "a name") for is_list, where in self._is_list.items()]
            found += _finding("mixed_labels", "some labels are lists and others are not", rows)
        known = self._first.get("train") or {n: at for names in self._first.values() for n, at in names.items()}
        is_multi = self._problem_type is ProblemType.MULTI_LABEL or True in self._is_list
        if self._first and not is_multi and len(known) < 2:
            got = ", ".join(known)
            found.append(Finding("one_class", ERROR, 1, f"only one class in the training data: {got}"))
        fractions = {name: where for name, where in known.items() if not (number_of(name) or 0.0).is_integer()}
        if not is_multi and fractions and all(number_of(name) is not None for name in known):
            rows = [FoundRow(where, got=name) for name, where in fractions.items()]
            found += _finding(
                "fractional_labels", f"{{labels}} fractional, so no classes; {REGRESSION} learns numbers", rows
            )
        unknown = [
            FoundRow(where, split, got=name)
            for split, names in self._first.items()
            for name, where in names.items()
            if name not in known
        ]
        return found + _finding("unknown_label", "{labels} not in the train split", unknown)


def _finding(kind: str, sentence: str, rows: list[FoundRow]) -> list[Finding]:
    labels = f"{plural(len(rows), 'label')} {'is' if len(rows) == 1 else 'are'}"
    sentence = sentence.format(rows=plural(len(rows), "row"), labels=labels)
    return [Finding(kind, ERROR, len(rows), sentence, rows)] if rows else []
