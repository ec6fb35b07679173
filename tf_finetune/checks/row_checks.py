"""What is wrong with rows, gathered while they stream by: one cheap pass, no tokenizer, 29 bytes a row."""

from array import array
from collections import Counter
from collections.abc import Sequence

from tf_finetune.checks import text_faults
from tf_finetune.checks.findings import ERROR, NOTE, WARNING, Finding, FoundRow, plural
from tf_finetune.checks.seen_rows import Places, RowStore, as_numpy, as_words
from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.readers.rows import Row

# Kinds told from one text alone: how bad, and what to say behind "3 rows ".
OF_ONE_TEXT = {
    "blank_text": (WARNING, "with an empty or blank text"),
    "mojibake": (WARNING, "with UTF-8 that was once read as Windows-1252, such as Ã© for é"),
    "replacement_character": (WARNING, "with U+FFFD, where a character was lost"),
    "control_character": (WARNING, "with control characters"),
    "text_is_label": (WARNING, "with a text that is the name of its label"),
    "html_markup": (NOTE, "with HTML markup or entities"),
    "no_words": (NOTE, "with a text that is a number or an address only"),
}
# A text is extreme beyond the quartiles times this power of their ratio, which is taken to be 2 at least.
EXTREME_POWER, LEAST_RATIO = 3, 2
# Fewer rows than this say nothing of what is extreme, or of what is rare.
FEWEST_ROWS = 20
# A label on so few rows can be learnt or tested, not both.
RARE = 2


class RowChecks:
    """Takes rows one at a time, and then says what is wrong with them.

    Training does `add(split, row)` for the stored rows of its splits (`data.brief_check`), and prints
    `findings.brief(checks.findings(most_rows=1))`. `check-data` passes `fault` to the reader, too.

    Args:
        problem_type: what the labels are.
    """

    def __init__(self, problem_type: ProblemType = ProblemType.AUTO):
        self.store = RowStore(problem_type)
        self._flagged: dict[str, array] = {kind: array("Q") for kind in OF_ONE_TEXT}
        self._faults: dict[str, Places] = {}
        self._fault_sentences: dict[str, str] = {}

    def fault(self, error: InputError) -> None:
        """Takes what is wrong with a row that cannot be used: an OnFault."""
        if error.what not in self._faults:
            place = " ".join(f", in {error.where}".split())
            self._faults[error.what], self._fault_sentences[error.what] = Places(), str(error).replace(place, "", 1)
        self._faults[error.what].append(str(error.where))

    def add(self, split: str, row: Row) -> None:
        """Takes a row of "train", "validation" or "test"."""
        kinds = text_faults.faults(row.text)
        if row.text_pair is not None:
            kinds = dict.fromkeys([*kinds, *text_faults.faults(row.text_pair)])
        for kind in kinds:
            self._flagged[kind].append(len(self.store))
        if len(row.text) < 100 and _is_label(row):
            self._flagged["text_is_label"].append(len(self.store))
        key = 0 if "blank_text" in kinds else hash(row.text if row.text_pair is None else (row.text, row.text_pair))
        self.store.append(split, row, key=key)

    def findings(self, *, most_rows: int | None = None) -> list[Finding]:
        """What is wrong, with at most so many rows of each; None means all."""
        from tf_finetune.checks.repeats import repeats

        found = self._unreadable(most_rows)
        for kind, (severity, words) in OF_ONE_TEXT.items():
            found += self.finding(kind, severity, words, self._flagged[kind], most_rows=most_rows)
        if len(self.store):
            again = repeats(self.store.keys, self.store.splits, self.store.labels)
            found += repeat_findings(self, again, normalised=False, most_rows=most_rows)
            found += self._extreme_lengths(most_rows) + self._odd_labels(most_rows)
        return found

    def finding(
        self,
        kind: str,
        severity: str,
        words: str,
        rows: Sequence[int],
        *,
        like: Sequence[int | None] | None = None,
        got: Sequence[str] | None = None,
        most_rows: int | None = None,
    ) -> list[Finding]:
        """A finding about these rows, "3 rows WORDS"; none where there are none.

        Args:
            kind: its name.
            severity: how bad it is.
            words: what is said of the rows.
            rows: their numbers.
            like: the row that each one that is listed repeats; None of the first.
            got: what is meant of each one that is listed.
            most_rows: how many are listed.
        """
        if not len(rows):
            return []
        store, listed = self.store, [int(row) for row in rows[:most_rows]]
        return [
            Finding(
                kind,
                severity,
                len(rows),
                f"{plural(len(rows), 'row')} {words}",
                [
                    FoundRow(
                        store.places[row],
                        store.split_of(row),
                        None if like is None or like[index] is None else store.places[like[index]],
                        None if got is None else got[index],
                    )
                    for index, row in enumerate(listed)
                ],
            )
        ]

    def _unreadable(self, most_rows: int | None) -> list[Finding]:
        found = []
        for what, places in self._faults.items():
            first = "" if len(places) == 1 else "; the first"
            sentence = f"{plural(len(places), 'row')} cannot be used{first}: {self._fault_sentences[what]}"
            count = len(places) if most_rows is None else min(most_rows, len(places))
            listed = [FoundRow(places[index]) for index in range(count)]
            found.append(Finding("unreadable_row", ERROR, len(places), sentence, listed))
        return found

    def _extreme_lengths(self, most_rows: int | None) -> list[Finding]:
        import numpy as np

        lengths = as_numpy(self.store.lengths)
        if len(lengths) < FEWEST_ROWS:
            return []
        low, high = np.percentile(lengths, [25, 75])
        reach = max(high / max(low, 1), LEAST_RATIO) ** EXTREME_POWER
        blank = set(self._flagged["blank_text"])
        rows = np.flatnonzero((lengths < low / reach) | (lengths > high * reach)).tolist()
        rows = [row for row in rows if row not in blank]
        words = f"far shorter or longer than the rest (half of all have {low:.0f} to {high:.0f} characters)"
        got = [f"{lengths[row]} characters" for row in rows[:most_rows]]
        return self.finding("extreme_length", NOTE, words, rows, got=got, most_rows=most_rows)

    def _odd_labels(self, most_rows: int | None) -> list[Finding]:
        """Labels that are rare, and labels that differ in case or white space only."""
        import numpy as np

        names = self.store.label_names
        if not names:
            return []
        labels = self.store.labels.astype(np.int64)
        counts: Counter[str] = Counter()
        for label, count in enumerate(np.bincount(labels, minlength=len(names)).tolist()):
            for name in [names[label]] if isinstance(names[label], str) else names[label]:
                counts[name] += count
        rare = {name for name, count in counts.items() if 0 < count <= RARE} if len(labels) >= FEWEST_ROWS else set()
        alike: dict[str, list[str]] = {}
        for name in counts:
            alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
        spellings = [group for group in alike.values() if len(group) > 1]
        fewer = {name for group in spellings for name in sorted(group, key=counts.__getitem__)[:-1]}
        groups = "; ".join(" and ".join(repr(name) for name in sorted(group)) for group in spellings[:5])
        return [
            *self._labelled("rare_label", "with a label that is there once or twice", rare - fewer, labels, most_rows),
            *self._labelled(
                "similar_labels", f"with a label spelt like another ({groups})", fewer, labels, most_rows
            ),
        ]  # fmt: skip

    def _labelled(self, kind: str, words: str, chosen: set[str], labels: Sequence[int], most_rows: int | None):
        """A warning about the rows that have one of the chosen classes."""
        import numpy as np

        names = self.store.label_names
        numbers = [
            n for n, name in enumerate(names) if not chosen.isdisjoint([name] if isinstance(name, str) else name)
        ]
        rows = np.flatnonzero(np.isin(labels, numbers)) if numbers else []
        got = [as_words(names[labels[row]]) for row in rows[:most_rows]]
        return self.finding(kind, WARNING, words, rows, got=got, most_rows=most_rows)


def repeat_findings(checks: RowChecks, again, *, normalised: bool, most_rows: int | None) -> list[Finding]:
    """What `repeats` found, in words.

    Args:
        checks: whose rows were compared.
        again: the `Repeats`.
        normalised: whether texts were compared without case, white space and punctuation.
        most_rows: how many are listed; None means all.
    """
    prefix, but = ("normalised_", " but for case, spaces and punctuation") if normalised else ("", "")
    leaks, copies = sorted(again.leaks), sorted(again.copies)
    conflicts = [row for rows in sorted(again.conflicts) for row in rows]
    got = [checks.store.label_of(row) for row in conflicts[:most_rows]]
    like = [None if row == rows[0] else rows[0] for rows in sorted(again.conflicts) for row in rows]
    return [
        *checks.finding(
            f"leaked_{prefix}text", WARNING, f"of validation or test with a text that is in an earlier split{but}",
            [row for row, _ in leaks], like=[other for _, other in leaks], most_rows=most_rows,
        ),
        *checks.finding(
            f"conflicting_{prefix}labels", WARNING,
            f"of {plural(len(again.conflicts), 'text')}{' (the same' + but + ')' if but else ''} with several labels",
            conflicts, like=like, got=got, most_rows=most_rows,
        ),
        *checks.finding(
            f"duplicate_{prefix}text", NOTE if normalised else WARNING,
            f"with a text that is in the same split already{but}",
            [row for row, _ in copies], like=[other for _, other in copies], most_rows=most_rows,
        ),
    ]  # fmt: skip


def _is_label(row: Row) -> bool:
    text = row.text.strip().casefold()
    return text in [name.casefold() for name in ([row.label] if isinstance(row.label, str) else row.label)]
