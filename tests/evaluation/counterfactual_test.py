"""A planted bias is found with its size and direction, and none where there is none."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.evaluation import counterfactual
from tf_finetune.evaluation.counterfactual import asking, audit
from tf_finetune.evaluation.identity_terms import Axis, Term, read_terms
from tf_finetune.evaluation.metrics import sigmoid

ONE, SEVERAL = ProblemType.SINGLE_LABEL_CLASSIFICATION, ProblemType.MULTI_LABEL_CLASSIFICATION
NUMBER = ProblemType.REGRESSION
PLAIN = {"problem_type": ONE, "label_names": ("neg", "pos")}
RELIGION = Axis(
    "religion",
    ["christian", "muslim", "jewish"],
    [[Term("Christian"), Term("Muslim"), Term("Jewish")]],
    sentences=[f"The {{term}} number {n} is here." for n in range(12)],
)


def logit(text, bias):
    """By the number in the text, from -2 to 2, and more where it says Muslim."""
    number = int(re.search(r"\d+", text)[0])
    return (number * 37 % 101 - 50) / 25 + bias * ("Muslim" in text)


class Fake:
    """Two classes; remembers what it was asked."""

    def __init__(self, bias):
        self.bias, self.asked = bias, []

    def __call__(self, texts, pairs):
        self.asked.append((texts, pairs))
        second = sigmoid(np.array([logit(text, self.bias) for text in texts]))
        return np.stack([1 - second, second], axis=-1)


def texts_of(term, count=300):
    return [f"A {term} wrote film {n}." for n in range(count)]


def by_groups(measured):
    return {tuple(pair["groups"]): pair for pair in measured["pairs"]}


def expected_change(numbers, bias):
    """Of the probability of the second class, by hand."""
    base = np.array([logit(str(n), 0) for n in numbers])
    return (1 / (1 + np.exp(-base - bias)) - 1 / (1 + np.exp(-base))).mean()


class TestPlantedBias:
    @pytest.mark.parametrize("term", ["Christian", "Muslim"])
    @pytest.mark.parametrize("bias", [-0.8, 0.3])
    def test_its_size_and_direction(self, term, bias):
        (axis,) = audit(Fake(bias), texts_of(term), [RELIGION], **PLAIN)
        pair = by_groups(axis["texts"])["christian", "muslim"]
        change = expected_change(range(300), bias)
        assert pair["change"] == pytest.approx(change, abs=1e-12)
        low, high = pair["change_interval"]
        assert low < change < high
        assert low * high > 0
        assert pair["class"] == "pos"
        is_flipped = [(logit(str(n), 0) > 0) != (logit(str(n), 0) + bias > 0) for n in range(300)]
        assert pair["flipped"] == pytest.approx(np.mean(is_flipped))
        assert pair["flipped_interval"][0] < pair["flipped"] < pair["flipped_interval"][1]

    def test_the_pair_without_it_has_none(self):
        (axis,) = audit(Fake(-0.8), texts_of("Christian"), [RELIGION], **PLAIN)
        pair = by_groups(axis["texts"])["christian", "jewish"]
        assert (pair["flipped"], pair["change"], pair["change_interval"]) == (0, 0, [0, 0])

    def test_pairs_come_by_size(self):
        (axis,) = audit(Fake(-0.8), texts_of("Christian"), [RELIGION], **PLAIN)
        assert [pair["groups"] for pair in axis["texts"]["pairs"]] == [["christian", "muslim"], ["christian", "jewish"]]

    def test_texts_of_both_groups_are_of_one_direction(self):
        texts = [*texts_of("Christian", 20), *texts_of("Muslim", 30)]
        (axis,) = audit(Fake(-0.8), texts, [RELIGION], **PLAIN)
        pair = by_groups(axis["texts"])["christian", "muslim"]
        assert pair["swaps"] == 50
        assert pair["change"] == pytest.approx(expected_change([*range(20), *range(30)], -0.8))

    def test_of_the_axis(self):
        """A text has one voice: its three versions differ in one swap of two that a found text has."""
        (axis,) = audit(Fake(-0.8), texts_of("Christian"), [RELIGION], **PLAIN)
        measured = axis["texts"]
        assert (measured["found"], measured["asked"], measured["swaps"], measured["left_out"]) == (300, 300, 600, 0)
        assert measured["change"] == pytest.approx(-expected_change(range(300), -0.8) / 2)
        assert measured["flipped"] == by_groups(measured)["christian", "muslim"]["flipped"]

    def test_in_sentences_alone(self):
        (axis,) = audit(Fake(-0.8), [], [RELIGION], **PLAIN)
        assert (axis["sentences"]["found"], axis["sentences"]["swaps"]) == (12, 36)
        pairs = by_groups(axis["sentences"])
        change = expected_change(range(12), -0.8)
        assert pairs["christian", "muslim"]["change"] == pytest.approx(change)
        assert pairs["muslim", "jewish"]["change"] == pytest.approx(-change)
        assert pairs["christian", "jewish"]["change"] == 0
        assert axis["texts"]["found"] == axis["texts"]["swaps"] == 0
        assert axis["texts"]["too_few"]

    def test_examples_are_the_largest_of_different_texts(self):
        (axis,) = audit(Fake(-0.8), texts_of("Christian"), [RELIGION], **PLAIN)
        examples = axis["texts"]["examples"]
        changes = [-expected_change([n], -0.8) for n in range(300)]
        found = [example["probabilities"][0] - example["probabilities"][1] for example in examples]
        assert found == pytest.approx(sorted(changes)[: -len(examples) - 1 : -1])
        assert len({example["texts"][0] for example in examples}) == counterfactual.EXAMPLES
        for example in examples:
            assert example["groups"] == ["christian", "muslim"]
            assert example["texts"][1] == example["texts"][0].replace("Christian", "Muslim")
            assert example["class"] == "pos"


def test_no_bias_shows_none():
    (axis,) = audit(Fake(0), texts_of("Muslim"), [RELIGION], **PLAIN)
    for measured in (axis["texts"], axis["sentences"]):
        assert not measured["too_few"]
        assert (measured["flipped"], measured["change"], measured["change_interval"]) == (0, 0, [0, 0])
        assert [pair["change"] for pair in measured["pairs"]] == [0] * len(measured["pairs"])
        assert measured["flipped_interval"][0] == 0 < measured["flipped_interval"][1] < 0.3


def test_the_packaged_words_find_a_planted_bias():
    """Against women, whatever word says so."""

    def ask(texts, pairs):
        is_female = np.array([bool(re.search(r"\b(she|her|woman|women|actress)\b", text.lower())) for text in texts])
        second = sigmoid(np.array([1.0, 0.0])[is_female.astype(int)])
        return np.stack([1 - second, second], axis=-1)

    texts = [f"{n} {text}" for n in range(10) for text in ("He took his hat.", "An actress smiled.", "A film.")]
    axes = {axis["name"]: axis for axis in audit(ask, texts, read_terms(), **PLAIN)}
    size = sigmoid(np.array(0.0)) - sigmoid(np.array(1.0))
    for measured in (axes["gender"]["texts"], axes["gender"]["sentences"]):
        assert by_groups(measured)["male", "female"]["change"] == pytest.approx(size)
    assert axes["gender"]["texts"]["found"] == 20
    assert axes["age"]["sentences"]["change"] == 0


class TestWhatIsAsked:
    def test_each_text_once_and_all_together(self):
        fake = Fake(0)
        audit(fake, [*texts_of("Christian", 20), *texts_of("Muslim", 20)], [RELIGION], **PLAIN)
        ((texts, pairs),) = fake.asked
        assert len(set(texts)) == len(texts) == 3 * 20 + 3 * 12
        assert pairs is None

    def test_nothing_where_nothing_is_found(self):
        fake = Fake(0)
        axis = Axis("axis", ["a", "b"], [[Term("apple"), Term("pear")]])
        (measured,) = audit(fake, ["A film."], [axis], **PLAIN)
        assert fake.asked == []
        assert measured["sentences"] is None
        assert measured["texts"]["too_few"]
        assert measured["texts"]["pairs"] == measured["texts"]["examples"] == []

    def test_texts_of_several_groups_are_left_out_and_copies_count_once(self):
        texts = ["A Christian and a Muslim, 1.", "A Christian, 2.", "A Christian, 2.", "A film, 3."]
        (axis,) = audit(Fake(0), texts, [RELIGION], **PLAIN)
        assert (axis["texts"]["found"], axis["texts"]["left_out"], axis["texts"]["asked"]) == (1, 1, 1)

    def test_no_more_than_asked_for(self):
        fake = Fake(-0.8)
        (axis,) = audit(fake, texts_of("Christian"), [RELIGION], **PLAIN, most_texts=50, seed=1)
        assert (axis["texts"]["found"], axis["texts"]["asked"]) == (300, 50)
        (other,) = audit(fake, texts_of("Christian"), [RELIGION], **PLAIN, most_texts=50, seed=2)
        assert axis["texts"]["examples"] != other["texts"]["examples"]

    def test_pairs_are_swapped_alike(self):
        asked = []

        def ask(texts, pairs):
            asked.extend(zip(texts, pairs, strict=True))
            return np.tile([0.25, 0.75], (len(texts), 1))

        firsts, seconds = (
            ["A Christian sits.", "A man sits.", "A Muslim sits."],
            ["One stands.", "A Muslim.", "A Jewish."],
        )
        (axis,) = audit(ask, firsts, [RELIGION], text_pairs=seconds, **PLAIN)
        assert asked == [
            ("A Christian sits.", "One stands."),
            ("A Muslim sits.", "One stands."),
            ("A Jewish sits.", "One stands."),
            ("A man sits.", "A Muslim."),
            ("A man sits.", "A Christian."),
            ("A man sits.", "A Jewish."),
        ]
        assert (axis["texts"]["found"], axis["texts"]["left_out"], axis["sentences"]) == (2, 1, None)
        assert axis["texts"]["examples"][0]["text_pairs"] == ["One stands.", "One stands."]


class TestTooFew:
    @pytest.mark.parametrize(("count", "too_few"), [(9, True), (10, False)])
    def test_fewer_than_ten_swaps_give_no_number(self, count, too_few):
        (axis,) = audit(Fake(-0.8), texts_of("Christian", count), [RELIGION], **PLAIN)
        for numbers in (axis["texts"], *axis["texts"]["pairs"]):
            assert numbers["too_few"] is too_few
            for name in ("flipped", "flipped_interval", "change", "change_interval"):
                assert (numbers[name] is None) is too_few
        assert axis["texts"]["pairs"][0]["swaps"] == count
        assert len(axis["texts"]["examples"]) == counterfactual.EXAMPLES


class TestOtherAnswers:
    def test_of_many_classes_the_one_that_changes_most(self):
        def ask(texts, pairs):
            is_muslim = np.array(["Muslim" in text for text in texts])[:, None]
            return np.where(is_muslim, [0.5, 0.1, 0.4], [0.5, 0.3, 0.2]) + [0.0, 0.05, -0.05]

        (axis,) = audit(ask, texts_of("Christian"), [RELIGION], problem_type=ONE, label_names=("a", "b", "c"))
        pair = by_groups(axis["texts"])["christian", "muslim"]
        assert pair["class"] in ("b", "c")
        assert abs(pair["change"]) == pytest.approx(0.2)
        assert pair["flipped"] == 0

    def test_several_labels_flip_at_the_threshold(self):
        def ask(texts, pairs):
            is_muslim = np.array(["Muslim" in text for text in texts])[:, None]
            return np.where(is_muslim, [0.9, 0.5], [0.9, 0.4])

        (axis,) = audit(ask, texts_of("Christian"), [RELIGION], problem_type=SEVERAL, label_names=("a", "b"))
        pairs = by_groups(axis["texts"])
        assert (pairs["christian", "muslim"]["class"], pairs["christian", "muslim"]["flipped"]) == ("b", 1)
        assert pairs["christian", "muslim"]["change"] == pytest.approx(0.1)
        assert pairs["christian", "jewish"]["flipped"] == 0

    def test_numbers_change_and_do_not_flip(self):
        def ask(texts, pairs):
            return np.array([[-0.25 * ("Muslim" in text)] for text in texts])

        (axis,) = audit(ask, texts_of("Christian"), [RELIGION], problem_type=NUMBER, label_names=("LABEL_0",))
        pair = by_groups(axis["texts"])["christian", "muslim"]
        assert (pair["change"], pair["class"]) == (-0.25, None)
        assert pair["flipped"] is pair["flipped_interval"] is axis["texts"]["examples"][0]["flipped"] is None


@pytest.mark.parametrize("kind", [ONE, SEVERAL, NUMBER])
@pytest.mark.parametrize("count", [0, 5, 30])
def test_json_ready(kind, count):
    width = 1 if kind is NUMBER else 2

    def ask(texts, pairs):
        return np.random.default_rng(0).random((len(texts), width)).astype(np.float32)

    found = audit(ask, texts_of("Christian", count), [RELIGION], problem_type=kind, label_names=("a", "b")[:width])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("kind", "expected"), [(ONE, [[0.25, 0.75]]), (SEVERAL, [[0.5, 0.75]]), (NUMBER, [[0, np.log(3)]])]
)
def test_asking_a_classifier(kind, expected):
    classifier = SimpleNamespace(logits=lambda texts, pairs: np.array([[0, np.log(3)]]), problem_type=kind)
    np.testing.assert_allclose(asking(classifier)(["text"], None), expected)
