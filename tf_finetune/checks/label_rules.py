"""What training asks of the labels of a source, told while its rows stream by."""

from tf_finetune.checks.findings import ERROR, Finding, FoundRow, plural
from tf_finetune.checks.seen_rows import as_words
from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.readers.rows import Row, classes_of, fractions_in, number_of

REGRESSION = f"model.problem_type={ProblemType.REGRESSION.value}"
# Kinds told from one label alone, and what to say behind "3 rows ".
OF_ONE_LABEL = {
    "not_a_number": "with a label that is no number",
    "list_label": f"with a list of labels, which {ProblemType.SINGLE_LABEL_CLASSIFICATION.value} does not take",
    "malformed_labels": "with labels that are neither a JSON list of names nor names with commas between",
}


class LabelRules:
    """Takes every row under the split it is read from, drawn or not; then says why training would refuse them.

    Args:
        problem_type: what the labels are.
        most_rows: how many rows of a finding are kept; None means all.
    """

    def __init__(self, problem_type: ProblemType, *, most_rows: int | None = None):
        self._problem_type, self._most_rows = problem_type, most_rows
        self._first: dict[str, dict[str, str]] = {}  # split -> class -> where it is met first
        self._is_list: dict[bool, str] = {}
        self._counts = dict.fromkeys(OF_ONE_LABEL, 0)
        self._rows: dict[str, list[FoundRow]] = {kind: [] for kind in OF_ONE_LABEL}

    def add(self, split: str, row: Row) -> None:
        first, is_list = self._first.setdefault(split, {}), not isinstance(row.label, str)
        if self._problem_type is ProblemType.REGRESSION:
            if number_of(row.label) is None:
                self._refuse("not_a_number", split, row)
            return
        if is_list and self._problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION:
            self._refuse("list_label", split, row)
            return
        self._is_list.setdefault(is_list, row.where)
        try:
            for name in classes_of(row.label, self._problem_type, row.where):
                first.setdefault(name, row.where)
        except InputError:
            self._refuse("malformed_labels", split, row)

    def findings(self) -> list[Finding]:
        """What is against the rules."""
        found = [
            Finding(kind, ERROR, self._counts[kind], f"{plural(self._counts[kind], 'row')} {words}", self._rows[kind])
            for kind, words in OF_ONE_LABEL.items()
            if self._counts[kind]
        ]
        if self._problem_type is ProblemType.REGRESSION or self._counts["list_label"]:
            return found
        if self._problem_type is ProblemType.AUTO and len(self._is_list) == 2:
            rows = [FoundRow(where, got="a list" if is_list else "a name") for is_list, where in self._is_list.items()]
            found.append(Finding("mixed_labels", ERROR, 2, "some labels are lists and others are not", rows))
        known = self._first.get("train")
        if known is None:
            known = {name: where for names in self._first.values() for name, where in names.items()}
        return found + self._too_few(known) + self._fractional(known) + self._unknown(known)

    def _refuse(self, kind: str, split: str, row: Row) -> None:
        self._counts[kind] += 1
        if self._most_rows is None or len(self._rows[kind]) < self._most_rows:
            self._rows[kind].append(FoundRow(row.where, split, got=as_words(row.label)[:60]))

    @property
    def _is_multi(self) -> bool:
        return self._problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION or True in self._is_list

    def _too_few(self, known: dict[str, str]) -> list[Finding]:
        if not self._is_list or self._counts["malformed_labels"]:
            return []
        if self._is_multi and not known:
            return [Finding("no_class", ERROR, 1, "only texts of no class in the training data")]
        if not self._is_multi and len(known) < 2:
            return [Finding("one_class", ERROR, 1, f"only one class in the training data: {', '.join(known)}")]
        return []

    def _fractional(self, known: dict[str, str]) -> list[Finding]:
        """Who states that a text has one class means such names; else they are more likely numbers to learn."""
        if self._problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION:
            return []
        advice = "" if self._is_multi else f"; {REGRESSION} learns numbers"
        rows = [FoundRow(known[name], got=name) for name in fractions_in(known)]
        return _finding("fractional_labels", f"fractional, so no classes{advice}", rows)

    def _unknown(self, known: dict[str, str]) -> list[Finding]:
        rows = [
            FoundRow(where, split, got=name)
            for split, names in self._first.items()
            for name, where in names.items()
            if known and name not in known
        ]
        return _finding("unknown_label", "not in the train split", rows)


def _finding(kind: str, words: str, rows: list[FoundRow]) -> list[Finding]:
    verb = "is" if len(rows) == 1 else "are"
    return [Finding(kind, ERROR, len(rows), f"{plural(len(rows), 'label')} {verb} {words}", rows)] if rows else []
