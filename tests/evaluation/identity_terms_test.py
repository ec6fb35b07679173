"""Terms are found as whole words, put in each other's place with their case and article, and read from a file."""

import re

import pytest

from tf_finetune.errors import InputError
from tf_finetune.evaluation.identity_terms import PACKAGED, Axis, Term, read_terms


@pytest.fixture
def gender():
    rows = [
        [Term("man"), Term("woman")],
        [Term("he"), Term("she")],
        [Term("him"), Term("her", is_found=False)],
        [Term("actor"), Term("actress")],
    ]
    return Axis("gender", ["male", "female"], rows)


@pytest.fixture
def religion():
    rows = [
        [Term("Christian"), Term("Muslim"), Term("Orthodox")],
        [Term("church"), Term("mosque"), Term("church hall")],
    ]
    return Axis("religion", ["A", "B", "C"], rows, phrases=["church mouse"])


class TestHeld:
    @pytest.mark.parametrize(
        ("text", "held"),
        [
            ("a man", {0}),
            ("A woman.", {1}),
            ("SHE said", {1}),
            ("he's a man", {0}),
            ("the man--well", {0}),
            ("(he)", {0}),
            ("he told her", {0, None}),
            ("her dog", {None}),
            ("men and women", set()),
            ("the manly he-man", set()),
            ("a man-eater", set()),
            ("mAn", set()),
            ("", set()),
            ("man and woman", {0, 1}),
        ],
    )
    def test_whole_words(self, gender, text, held):
        assert gender.held([text]) == held

    def test_both_texts_of_a_pair(self, gender):
        assert gender.held(["a man", "a woman"]) == {0, 1}

    @pytest.mark.parametrize(("text", "held"), [("a church", {0}), ("a church hall", {2}), ("a church mouse", {None})])
    def test_the_longest_term_counts(self, religion, text, held):
        assert religion.held([text]) == held


class TestSwapped:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("he is a man", "she is a woman"),
            ("He is A MAN", "She is A WOMAN"),
            ("I told him: he's the man--yes", "I told her: she's the woman--yes"),
            ("She saw him", "She saw her"),
            ("he-man, human", "he-man, human"),
        ],
    )
    def test_case_and_the_rest_stay(self, gender, text, expected):
        assert gender.swapped(text, source=0, target=1) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("christian, Christian, CHRISTIAN", "orthodox, Orthodox, ORTHODOX"),
            ("a Christian and A  christian", "an Orthodox and An  orthodox"),
            ("A CHRISTIAN", "AN ORTHODOX"),
            ("the Christian", "the Orthodox"),
        ],
    )
    def test_articles_agree(self, religion, text, expected):
        assert religion.swapped(text, source=0, target=2) == expected

    def test_an_article_loses_its_n(self, religion):
        assert religion.swapped("An Orthodox, an orthodox", source=2, target=0) == "A Christian, a christian"

    @pytest.mark.parametrize(
        ("word", "article"), [("European", "A"), ("uniformed", "A"), ("Irish", "An"), ("older", "An")]
    )
    def test_articles_go_by_the_sound(self, word, article):
        axis = Axis("a", ["x", "y"], [[Term("man"), Term(word)]])
        assert axis.swapped("A man", source=0, target=1).split()[0] == article

    def test_there_and_back(self, gender):
        text = "An actor said HE is a man. He is."
        there = gender.swapped(text, source=0, target=1)
        assert there == "An actress said SHE is a woman. She is."
        assert gender.swapped(there, source=1, target=0) == text


class TestPackaged:
    def test_axes(self):
        axes = {axis.name: axis for axis in read_terms()}
        assert {"gender", "race", "nationality", "religion", "sexual orientation", "age", "disability"} <= set(axes)
        assert axes["gender"].swapped("He took his hat.", source=0, target=1) == "She took her hat."
        assert axes["religion"].swapped("a Muslim family", source=1, target=4) == "a Buddhist family"

    def test_sentences_differ_in_their_terms_alone(self):
        for axis in read_terms():
            assert len(axis.sentences) >= 10
            for versions in axis.sentences:
                assert len(set(versions)) == len(versions) == len(axis.groups)
                assert "{" not in "".join(versions)
                for group, version in enumerate(versions):
                    assert axis.held([version]) == {group}
                    assert not re.search(r"\b(a [aeio]|an [^aeio])", version, re.IGNORECASE)
                    assert axis.swapped(version, source=group, target=0) == versions[0]


def read(path, text):
    path.write_text(text, encoding="utf-8")
    return read_terms(path)


class TestReadTerms:
    def test_all_that_there_may_be(self, tmp_path):
        text = """
            # remark
            > This is a {term}.
            [axis: one, two]
            apple tree, pear tree
            apple, (pear)
            ! apple pie
            [other: x, y]
            first, second
            > The first is here.
        """
        axis, other = read(tmp_path / "terms.txt", text)
        assert (axis.name, axis.groups, other.groups) == ("axis", ("one", "two"), ("x", "y"))
        assert axis.sentences == [["This is an apple tree.", "This is a pear tree."]]
        assert other.sentences == [["The first is here.", "The second is here."]]
        assert axis.swapped("an apple", source=0, target=1) == "a pear"
        assert axis.held(["a pear"]) == axis.held(["an apple pie"]) == {None}

    def test_a_file_of_ones_own_beside_the_packaged_one(self, tmp_path):
        (tmp_path / "terms.txt").write_text("[gender: x, y]\nhe, she\n[fruit: one, two]\napple, pear\n")
        packaged, both = read_terms(), read_terms(PACKAGED, tmp_path / "terms.txt")
        assert [axis.name for axis in both] == [*(axis.name for axis in packaged), "fruit"]
        assert {axis.name: axis.groups for axis in both}["gender"] == ("x", "y")

    def test_no_sentences(self, tmp_path):
        assert read(tmp_path / "terms.txt", "[axis: one, two]\napple, pear\n")[0].sentences == []

    @pytest.mark.parametrize(
        ("lines", "expected", "got"),
        [
            ("apple, pear", r"\[AXIS: GROUP, GROUP\] before the first terms", "apple, pear"),
            ("[axis]", r"\[AXIS: GROUP, GROUP ...\]", r"\[axis\]"),
            ("[axis: one]", r"\[AXIS: GROUP, GROUP ...\]", r"\[axis: one\]"),
            ("[axis: one, one]", r"\[AXIS: GROUP, GROUP ...\]", r"\[axis: one, one\]"),
            ("[axis: one, two\napple, pear", r"\[AXIS: GROUP, GROUP ...\]", r"\[axis: one, two"),
            ("[axis: a, b]\nx, y\n[axis: a, b]", "each axis once", r"\[axis: a, b\]"),
            ("[axis: a, b]\nx", "a term for each of a, b", "x"),
            ("[axis: a, b]\nx, y, z", "a term for each of a, b", "x, y, z"),
            ("[axis: a, b]\nx, y\nz, X", "each term once, and X in parentheses where it is only put in", "z, X"),
            ("[axis: a, b]\nx, x", "each term once, and x in parentheses where it is only put in", "x, x"),
            ("[axis: a, b]\nx,", "terms with commas between, that begin and end with a letter", "x,"),
            ("[axis: a, b]\nx, (y", "terms with commas between, that begin and end with a letter", r"x, \(y"),
        ],
    )
    def test_a_malformed_line_is_named(self, tmp_path, lines, expected, got):
        number = lines.count("\n") + 1 if not lines.startswith("[axis: one, two\n") else 1
        line = f"malformed identity terms, in {tmp_path}/terms.txt line {number}, expected {expected}, got {got}$"
        with pytest.raises(InputError, match=line):
            read(tmp_path / "terms.txt", lines)

    @pytest.mark.parametrize("sentence", ["Nobody is here.", "x and y", "It is (z)."])
    def test_a_sentence_without_terms(self, tmp_path, sentence):
        expected = "malformed sentence, in .* line 4, expected {term} or terms of one group of axis, which can be taken"
        with pytest.raises(InputError, match=expected):
            read(tmp_path / "terms.txt", f"[axis: a, b]\nx, y\nw, (z)\n> {sentence}")

    def test_no_axis(self, tmp_path):
        with pytest.raises(InputError, match=r"no identity terms, in .*, expected \[AXIS: GROUP, GROUP\] and lines"):
            read(tmp_path / "terms.txt", "# nothing\n")

    def test_an_axis_without_terms(self, tmp_path):
        with pytest.raises(InputError, match=r"no terms to be found, in .*terms.txt \[axis\], expected lines of terms"):
            read(tmp_path / "terms.txt", "[axis: a, b]\n(x), (y)\n")

    @pytest.mark.parametrize("content", [None, b"\xff\xfe"])
    def test_an_unreadable_file(self, tmp_path, content):
        if content:
            (tmp_path / "terms.txt").write_bytes(content)
        with pytest.raises(InputError, match="unreadable identity terms, in .*, expected text in UTF-8, got "):
            read_terms(tmp_path / "terms.txt")
