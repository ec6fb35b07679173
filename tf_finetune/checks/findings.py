"""What is wrong with data, as objects: a kind, how bad it is, a sentence and the rows; and as lines to print."""

import dataclasses
from collections.abc import Iterable, Sequence

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")
# Rows of a finding that a terminal shows.
SHOWN_ROWS = 4
# Findings that training shows before it begins.
BRIEF = 4


@dataclasses.dataclass(frozen=True)
class FoundRow:
    """A row that a finding is about.

    Attributes:
        where: its file and line, or dataset, split and row.
        split: the split that training puts it in; None where the row cannot be read.
        like: where the row stands that it repeats.
        got: the part of it that is meant, such as its label.
    """

    where: str
    split: str | None = None
    like: str | None = None
    got: str | None = None


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong, or may be.

    Attributes:
        kind: a name that stays the same, such as "leaked_text".
        severity: "error": training refuses the data; "warning": it spoils training or its figures; "note".
        count: rows, all of them.
        sentence: what it is, for people.
        rows: the first of them, or all, as was asked for.
    """

    kind: str
    severity: str
    count: int
    sentence: str
    rows: Sequence[FoundRow] = ()


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes; the more rows, the earlier."""
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.count))


def lines(findings: Iterable[Finding]) -> list[str]:
    """For the terminal: a line for each finding, and one for its first rows."""
    printed = []
    for finding in worst_first(findings):
        printed.append(f"{finding.severity:<8} {finding.kind}: {finding.sentence}")
        printed += [f"{'':9}{_row(row)}" for row in finding.rows[:SHOWN_ROWS]]
        if finding.rows and finding.count > SHOWN_ROWS:
            printed.append(f"{'':9}and {finding.count - SHOWN_ROWS} more")
    return printed


def brief(findings: Iterable[Finding]) -> list[str]:
    """For the start of a training run: at most six lines, of errors and warnings only; nothing if there are none."""
    bad = [finding for finding in worst_first(findings) if finding.severity != NOTE]
    if not bad:
        return []
    printed = [f"the data has {plural(len(bad), 'thing')} to look at; `tf-finetune check-data` shows all rows:"]
    for finding in bad[:BRIEF]:
        first = f", first in {finding.rows[0].where}" if finding.rows else ""
        printed.append(f"  {finding.sentence}{first}")
    if len(bad) > BRIEF:
        printed.append(f"  and {len(bad) - BRIEF} more: {', '.join(finding.kind for finding in bad[BRIEF:])}")
    return printed


def plural(count: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _row(row: FoundRow) -> str:
    got = f": {row.got}" if row.got else ""
    like = f", like {row.like}" if row.like else ""
    split = f" ({row.split})" if row.split else ""
    return f"{row.where}{split}{like}{got}"
