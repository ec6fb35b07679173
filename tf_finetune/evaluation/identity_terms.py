"""Words for groups of people, found in texts and put in each other's place: `identity_terms.txt` has them."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from tf_finetune.errors import InputError

PACKAGED = Path(__file__).with_suffix(".txt")
SLOT = "{term}"
HEADER = re.compile(r"\[([^\[\]:]+):([^\[\]:]+)\]")
WORD = re.compile(r"\w+")
# A letter spoken as it is written: "an American", but "a European" and "a united".
VOWEL = re.compile("(?!eu|uni|one)[aeiou]", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Term:
    """A word or words; `is_found` unless it is only put in."""

    text: str
    is_found: bool = True

    def forms(self) -> tuple[str, str, str, str]:
        """As written, in small letters, with a capital, and in capitals."""
        return self.text, self.text.lower(), self.text[:1].upper() + self.text[1:], self.text.upper()


class Axis:
    """The groups of one kind and their words.

    Args:
        name: such as "gender".
        groups: their names, two or more.
        rows: of a term for each group, which stand in each other's place.
        phrases: texts with these are left out.
        sentences: with SLOT or terms of one group.

    Attributes:
        sentences: the versions of each, in the order of the groups; None for one that has none.
    """

    def __init__(
        self,
        name: str,
        groups: Sequence[str],
        rows: Sequence[Sequence[Term]],
        *,
        phrases: Sequence[str] = (),
        sentences: Sequence[str] = (),
    ):
        self.name, self.groups, self.rows = name, tuple(groups), rows
        terms = [(row, group, term) for row, cells in enumerate(rows) for group, term in enumerate(cells)]
        # Form -> row, group and kind of form. What is written as one term goes before another's capitals.
        self._places: dict[str, tuple[int, int, int]] = {}
        for kind in range(4):
            for row, group, term in terms:
                if term.is_found:
                    self._places.setdefault(term.forms()[kind], (row, group, kind))
        fixed = {form for _, _, term in terms for form in term.forms()} - self._places.keys()
        forms = fixed | self._places.keys() | {form for phrase in phrases for form in Term(phrase).forms()}
        self._first_words = {WORD.match(form)[0] for form in forms}
        longest_first = "|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form)))
        # Whole words, and no parts of those with a hyphen; a dash of two is none.
        self._pattern = re.compile(rf"(?:\b([Aa]n?|AN)(\s+))?(?<!\w)(?<!\w-)({longest_first})(?!-?\w)")
        self.sentences = [self._versions(sentence) for sentence in sentences]

    def held(self, texts: Sequence[str]) -> set[int | None]:
        """The groups, by number, of which the texts hold a term; None among them for what cannot be taken out."""
        found = set()
        for text in texts:
            if not self._first_words.isdisjoint(WORD.findall(text)):
                places = (self._places.get(match[3]) for match in self._pattern.finditer(text))
                found |= {place and place[1] for place in places}
        return found

    def swapped(self, text: str, *, source: int, target: int) -> str:
        """The text with every term of one group replaced by that of another, its case and an article before it kept."""

        def replace(match: re.Match) -> str:
            row, group, kind = self._places.get(match[3], (0, None, 0))
            if group != source:
                return match[0]
            return with_article(match[1], match[2], self.rows[row][target].forms()[kind])

        return self._pattern.sub(replace, text)

    def _versions(self, sentence: str) -> list[str] | None:
        """The sentence with each group's terms; None if it does not hold those of exactly one group."""
        term = self.rows[0][0].text
        filled = re.sub(
            rf"(?:\b([Aa]n?)(\s+))?{re.escape(SLOT)}", lambda match: with_article(match[1], match[2], term), sentence
        )
        held = self.held([filled])
        if len(held) != 1 or None in held:
            return None
        source = held.pop()
        return [self.swapped(filled, source=source, target=target) for target in range(len(self.groups))]


def with_article(article: str | None, space: str | None, term: str) -> str:
    """The term behind the article it takes, if it had one at all."""
    if article is None:
        return term
    ending = "n" if VOWEL.match(term) else ""
    return article[0] + (ending.upper() if article.isupper() and term.isupper() else ending) + space + term


def read_terms(*paths: Path) -> list[Axis]:
    """The axes of files, whose form `identity_terms.txt` describes; without any, those of that one.

    Args:
        *paths: an axis of a later file stands for one of the same name of an earlier: `PACKAGED, own` adds to ours.

    Raises:
        InputError: a file cannot be read, a line is malformed, or a file has no axis.
    """
    return list({axis.name: axis for path in paths or (PACKAGED,) for axis in _axes(path)}.values())


def _axes(path: Path) -> list[Axis]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("unreadable identity terms", where=path, expected="text in UTF-8", got=str(error)) from None
    sections: list[_Section] = [_Section()]
    for number, line in enumerate(map(str.strip, lines), start=1):
        try:
            if line.startswith("["):
                sections.append(_begun(line, [section.name for section in sections]))
            elif line and not line.startswith("#"):
                sections[-1].add(line, number)
        except _Malformed as expected:
            where = f"{path} line {number}"
            raise InputError("malformed identity terms", where=where, expected=expected, got=line[:100]) from None
    common, *rest = sections
    if not rest:
        raise InputError("no identity terms", where=path, expected="[AXIS: GROUP, GROUP] and lines of terms")
    return [section.finished(common.sentences, path) for section in rest]


class _Malformed(Exception):
    """What a line should have been."""


@dataclasses.dataclass
class _Section:
    """An axis as its lines come, or what stands above the first."""

    name: str = ""
    groups: list[str] = dataclasses.field(default_factory=list)
    rows: list[list[Term]] = dataclasses.field(default_factory=list)
    phrases: list[str] = dataclasses.field(default_factory=list)
    sentences: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def add(self, line: str, number: int) -> None:
        if line.startswith(">"):
            self.sentences.append((number, line[1:].strip()))
        elif not self.name:
            raise _Malformed("[AXIS: GROUP, GROUP] before the first terms")
        elif line.startswith("!"):
            self.phrases += [term.text for term in _terms(line[1:])]
        else:
            self._add_row(_terms(line))

    def _add_row(self, terms: list[Term]) -> None:
        if len(terms) != len(self.groups):
            raise _Malformed(f"a term for each of {', '.join(self.groups)}")
        known = {term.text.lower() for row in self.rows for term in row if term.is_found}
        for term in terms:
            if term.is_found and term.text.lower() in known:
                raise _Malformed(f"each term once, and {term.text} in parentheses where it is only put in")
            known |= {term.text.lower()} if term.is_found else set()
        self.rows.append(terms)

    def finished(self, common: list[tuple[int, str]], path: Path) -> Axis:
        if not any(term.is_found for row in self.rows for term in row):
            raise InputError("no terms to be found", where=f"{path} [{self.name}]", expected="lines of terms")
        numbered = self.sentences or common
        axis = Axis(self.name, self.groups, self.rows, phrases=self.phrases, sentences=[text for _, text in numbered])
        for (number, sentence), versions in zip(numbered, axis.sentences, strict=True):
            if versions is None:
                expected = f"{SLOT} or terms of one group of {self.name}, which can be taken out"
                raise InputError("malformed sentence", where=f"{path} line {number}", expected=expected, got=sentence)
        return axis


def _begun(line: str, names: list[str]) -> _Section:
    header = HEADER.fullmatch(line)
    name, groups = (header[1].strip(), [group.strip() for group in header[2].split(",")]) if header else ("", [])
    if not name or len(groups) < 2 or not all(groups) or len(set(groups)) < len(groups):
        raise _Malformed("[AXIS: GROUP, GROUP ...]")
    if name in names:
        raise _Malformed("each axis once")
    return _Section(name, groups)


def _terms(line: str) -> list[Term]:
    terms = []
    for cell in map(str.strip, line.split(",")):
        is_found = not (cell.startswith("(") and cell.endswith(")"))
        text = cell if is_found else cell[1:-1].strip()
        if not re.fullmatch(r"\w|\w[^()\[\]]*\w", text):
            raise _Malformed("terms with commas between, that begin and end with a letter")
        terms.append(Term(text, is_found))
    return terms
