"""What is wrong with labelled text, by file and row: all rows in one pass, digests and counters kept, no text."""

import dataclasses
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tf_finetune.checks import findings, placing, split_rules, text_faults
from tf_finetune.checks.findings import NOTE, Finding
from tf_finetune.checks.label_rules import LabelRules
from tf_finetune.checks.row_checks import RowChecks, repeat_findings
from tf_finetune.checks.seen_rows import SPLITS, as_numpy, as_words
from tf_finetune.config import ProblemType
from tf_finetune.readers.rows import Found, Row

if TYPE_CHECKING:
    import numpy as np

# Texts tokenised at once.
CHUNK = 1024
PERCENTILES = {"median": 50, "p90": 90, "p99": 99, "max": 100}

# Tokens of each text, or pair of texts where the second list is not None, [CLS] and [SEP] included.
CountTokens = Callable[[Sequence[str], Sequence[str] | None], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """One split as training would have it.

    Attributes:
        examples: rows.
        labels: rows of each class (of each list of classes its classes), the most frequent first; of numbers
            "min", "mean" and "max".
        tokens: "median", "p90", "p99" and "max" of the texts' lengths, special tokens included.
        truncated: the share of texts longer than data.max_length.
    """

    examples: int
    labels: dict[str, float]
    tokens: dict[str, int]
    truncated: float


@dataclasses.dataclass(frozen=True)
class DataReport:
    """What `check_data` returns, as a dict, and `--json` writes.

    Attributes:
        source: the data, as it was named.
        problem_type: what the labels were taken for.
        max_length: data.max_length.
        max_length_for_99_percent: the least data.max_length that truncates at most one text in a hundred.
        splits: by "train", "validation" and "test".
        notes: what the reader left out, a sentence each.
        errors: findings of that severity: training refuses the data.
        warnings: findings of that severity.
        findings: errors first; each has kind, severity, count, sentence and rows (where, split, like, got).
    """

    source: str
    problem_type: str
    max_length: int
    max_length_for_99_percent: int
    splits: dict[str, SplitReport]
    notes: list[str]
    errors: int
    warnings: int
    findings: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)


def check(
    found: Found,
    *,
    source: str,
    count_tokens: CountTokens,
    max_length: int,
    problem_type: ProblemType = ProblemType.AUTO,
    max_examples: int = 0,
    validation_examples: int = 0,
    seed: int = 0,
    most_rows: int | None = None,
) -> DataReport:
    """Reads all rows, those that cannot be used passed over, and says what is wrong with them.

    41 bytes a row are kept, and 250 for every row of a finding that is listed. Names of the files in a folder of
    classes come on top, and 100 bytes a row of train where a share of it is held out by its order (`placing.placed`).

    Args:
        found: what the source holds.
        source: its name, for the report.
        count_tokens: the checkpoint's tokenizer; first called when there is something to count.
        max_length: tokens beyond which training cuts a text.
        problem_type: what the labels are.
        max_examples: as for `sources.load`.
        validation_examples: as for `sources.load`.
        seed: as for `sources.load`.
        most_rows: how many rows of a finding are listed; None means all.

    Raises:
        InputError: a file has a fault as a whole, such as no such column.
    """
    checks, rules = RowChecks(problem_type), LabelRules(problem_type, most_rows=most_rows)
    longer, read, used = _Lengths(count_tokens), set(), set()
    options = {"max_examples": max_examples, "validation_examples": validation_examples, "seed": seed}
    for read_from, split, row in placing.placed(found, **options, on_fault=checks.fault):
        rules.add(read_from, row)
        read.add(read_from)
        if split:
            used.add(split)
            checks.add(split, row)
            longer.add(row)
    longer.count()
    tokens = as_numpy(longer.tokens)
    all_findings = [
        *split_rules.findings(found, read=read, used=used),
        *rules.findings(),
        *checks.findings(most_rows=most_rows),
        *_normalised_repeats(checks, longer, most_rows),
        *_truncated(checks, tokens, max_length, most_rows),
    ]
    return DataReport(
        source=source,
        problem_type=problem_type.value,
        max_length=max_length,
        max_length_for_99_percent=_percentiles(tokens)["p99"],
        splits=_splits(checks, tokens, max_length, is_number=problem_type is ProblemType.REGRESSION),
        notes=list(found.notes),
        errors=sum(finding.severity == findings.ERROR for finding in all_findings),
        warnings=sum(finding.severity == findings.WARNING for finding in all_findings),
        findings=findings.worst_first(all_findings),
    )


class _Lengths:
    """The costly half, rows in the order of `RowChecks`: tokens of each text, and a hash of its normal form."""

    def __init__(self, count_tokens: CountTokens):
        self._count_tokens = count_tokens
        self._texts: list[str] = []
        self._pairs: list[str] = []
        self.tokens, self.keys = array("I"), array("q")

    def add(self, row: Row) -> None:
        self._texts.append(row.text)
        form: str | tuple[str, str] = text_faults.normalised(row.text)
        if row.text_pair is not None:
            self._pairs.append(row.text_pair)
            form = (form, text_faults.normalised(row.text_pair))
        self.keys.append(hash(form) if form else 0)
        if len(self._texts) == CHUNK:
            self.count()

    def count(self) -> None:
        if self._texts:
            self.tokens.extend(self._count_tokens(self._texts, self._pairs or None))
        self._texts.clear()
        self._pairs.clear()


def _normalised_repeats(checks: RowChecks, longer: _Lengths, most_rows: int | None) -> list[Finding]:
    from tf_finetune.checks.repeats import repeats

    store = checks.store
    if not len(store):
        return []
    again = repeats(as_numpy(longer.keys), store.splits, store.labels, but=store.keys)
    return repeat_findings(checks, again, normalised=True, most_rows=most_rows)


def _truncated(checks: RowChecks, tokens: "np.ndarray", max_length: int, most_rows: int | None) -> list[Finding]:
    import numpy as np

    rows, words = np.flatnonzero(tokens > max_length), f"longer than data.max_length={max_length} tokens"
    got = [f"{tokens[row]} tokens" for row in rows[:most_rows]]
    return checks.finding("truncated", NOTE, words, rows, got=got, most_rows=most_rows)


def _splits(checks: RowChecks, tokens: "np.ndarray", max_length: int, *, is_number: bool) -> dict[str, SplitReport]:
    reports = {}
    for number, split in enumerate(SPLITS):
        chosen = checks.store.splits == number
        if not chosen.any():
            continue
        labels, lengths = checks.store.labels[chosen], tokens[chosen]
        balance = _numbers(labels) if is_number else _balance(labels, checks.store.label_names)
        reports[split] = SplitReport(
            int(chosen.sum()), balance, _percentiles(lengths), round(float((lengths > max_length).mean()), 6)
        )
    return reports


def _balance(labels: "np.ndarray", names: Sequence[str | tuple[str, ...]]) -> dict[str, int]:
    import numpy as np

    counts: dict[str, int] = {}
    for label, count in enumerate(np.bincount(labels.astype(np.int64), minlength=len(names)).tolist()):
        single = isinstance(names[label], str) or not names[label]
        for name in [as_words(names[label])] if single else names[label]:
            counts[name] = counts.get(name, 0) + count
    return dict(sorted(((name, count) for name, count in counts.items() if count), key=lambda item: -item[1]))


def _numbers(labels: "np.ndarray") -> dict[str, float]:
    import numpy as np

    labels = labels[np.isfinite(labels)]
    return {"min": float(labels.min()), "mean": float(labels.mean()), "max": float(labels.max())} if len(labels) else {}


def _percentiles(lengths: "np.ndarray") -> dict[str, int]:
    import numpy as np

    if not len(lengths):
        return dict.fromkeys(PERCENTILES, 0)
    values = np.percentile(lengths, list(PERCENTILES.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(PERCENTILES, values, strict=True)}
