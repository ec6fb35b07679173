"""Integrated gradients against a sum of finite differences, which knows nothing of gradients or of quadrature."""

import dataclasses
import json

import numpy as np
import pytest

from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.config import Truncation
from tf_finetune.errors import InputError
from tf_finetune.evaluation import explanation as explanation_module
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.evaluation.explanation import (
    Attribution,
    Explanation,
    completeness_error,
    explain,
    integral,
    logits_from,
)
from tf_finetune.text.tokenizer import Tokenizer

TEXTS = ["The film was very good!", "a dull plot, and not so great", "bad", "the cast is the cast . it is great great"]
PAIRS = ["the plot", "good, very good and so on", "", "a film"]


def classifier_of(folder, *, max_length=32, truncation=Truncation.HEAD, **options):
    """A random model with a head whose scores are not all alike."""
    model = TFBertForSequenceClassification.from_pretrained(folder, **options)
    random = np.random.default_rng(0)
    for weight in model.classifier.weights:
        weight.assign(random.normal(size=weight.shape))
    return Classifier(model, Tokenizer(folder), max_length=max_length, truncation=truncation)


@pytest.fixture(scope="module")
def two_classes(tiny_checkpoint):
    return classifier_of(tiny_checkpoint, id2label=["neg", "pos"])


@pytest.fixture(scope="module")
def three_classes(tiny_checkpoint):
    return classifier_of(tiny_checkpoint, id2label=["a", "b", "c"])


@pytest.fixture(scope="module")
def several_labels(tiny_checkpoint):
    kind = "multi_label_classification"
    return classifier_of(tiny_checkpoint, id2label=["a", "b", "c"], problem_type=kind)


@pytest.fixture(scope="module")
def number(tiny_checkpoint):
    return classifier_of(tiny_checkpoint, id2label=["score"], problem_type="regression")


def log_odds(logits, label):
    probabilities = np.exp(np.float64(logits) - np.max(logits))
    probabilities /= probabilities.sum()
    return np.log(probabilities[label] / np.delete(probabilities, label).sum())


def rows_of(classifier):
    """The word embeddings, a copy."""
    return classifier.model.bert.embeddings.word_embeddings.embeddings.numpy().copy()


def scores_of(classifier, vectors, types, score):
    """One of each row of word vectors (rows, length, hidden)."""
    ids = np.zeros(vectors.shape[:2], np.int32)
    logits = logits_from(classifier.model, np.float32(vectors), input_ids=ids, token_type_ids=types[None])
    return np.array([score(row) for row in np.array(logits)])


def by_finite_differences(classifier, text, pair, score, *, points=200, step=2e-2):
    """The midpoint sum of the slopes along the line, token by token, each from two scores a little apart."""
    ids, first_lengths = classifier.encode([text], None if pair is None else [pair])
    ids = np.array(ids[0])
    first_length = len(ids) if first_lengths is None else first_lengths[0]
    types = (np.arange(len(ids)) >= first_length).astype(np.int32)
    special = {0, len(ids) - 1, first_length - 1}
    table = rows_of(classifier).astype(np.float64)
    way = table[ids] - table[[i if at in special else 0 for at, i in enumerate(ids)]]
    shares = (np.arange(points) + 0.5) / points
    line = table[ids] - (1 - shares)[:, None, None] * way
    attributions = []
    for position in sorted(set(range(len(ids))) - special):
        there = np.zeros_like(way)
        there[position] = way[position] * step / 2
        higher, lower = (scores_of(classifier, line + sign * there, types, score) for sign in (1, -1))
        attributions.append(float(np.mean((higher - lower) / step)))
    return attributions


def attributions_of(explanation):
    return [token.attribution for token in explanation.tokens]


def assert_as_by_finite_differences(classifier, text, pair, score, label):
    (explanation,) = explain(classifier, [text], None if pair is None else [pair], labels=[label])
    expected = by_finite_differences(classifier, text, pair, score)
    assert np.abs(expected).max() > 0.05  # there is something to find
    np.testing.assert_allclose(attributions_of(explanation), expected, atol=2e-3, rtol=2e-3)


class TestAgainstFiniteDifferences:
    @pytest.mark.parametrize("label", [0, 1, 2])
    def test_one_of_three_classes(self, three_classes, label):
        name = three_classes.label_names[label]
        assert_as_by_finite_differences(three_classes, TEXTS[0], None, lambda logits: log_odds(logits, label), name)

    def test_a_pair(self, two_classes):
        assert_as_by_finite_differences(two_classes, TEXTS[0], "a plot", lambda logits: logits[1] - logits[0], "pos")

    def test_several_labels(self, several_labels):
        assert_as_by_finite_differences(several_labels, TEXTS[1], None, lambda logits: logits[2], "c")

    def test_a_number(self, number):
        assert_as_by_finite_differences(number, TEXTS[1], None, lambda logits: logits[0], "score")


class TestScores:
    def test_of_two_classes_it_is_the_difference_of_the_logits(self, two_classes):
        logits = two_classes.logits(TEXTS)
        for row, explanation in zip(logits, explain(two_classes, TEXTS, labels=["neg"] * 4), strict=True):
            assert explanation.score == pytest.approx(row[0] - row[1], abs=1e-5)

    def test_of_three_it_is_the_log_odds(self, three_classes):
        logits = three_classes.logits(TEXTS)
        for row, explanation in zip(logits, explain(three_classes, TEXTS), strict=True):
            assert explanation.score == pytest.approx(log_odds(row, row.argmax()), abs=1e-5)

    @pytest.mark.parametrize("kind", ["several_labels", "number"])
    def test_else_it_is_the_logit(self, kind, request):
        classifier = request.getfixturevalue(kind)
        logits = classifier.logits(TEXTS)
        for row, explanation in zip(logits, explain(classifier, TEXTS), strict=True):
            assert explanation.score == pytest.approx(row.max(), abs=1e-5)

    def test_true_word_vectors_give_the_logits_of_an_ordinary_call(self, three_classes):
        model = three_classes.model
        ids = np.array(three_classes.encode([TEXTS[1]])[0], np.int32)
        types = np.zeros_like(ids)
        vectors = model.bert.embeddings.word_vectors(ids)
        given = logits_from(model, vectors, input_ids=np.zeros_like(ids), token_type_ids=types)
        np.testing.assert_array_equal(np.array(given), np.array(model({"input_ids": ids, "token_type_ids": types})))

    def test_the_baseline_is_padding_that_is_looked_at(self, two_classes):
        ids = two_classes.encode([TEXTS[0]])[0][0]
        ids[1:-1] = [0] * (len(ids) - 2)
        neg, pos = np.array(two_classes.model({"input_ids": np.array([ids])}))[0]
        (explanation,) = explain(two_classes, [TEXTS[0]], labels=["pos"])
        assert explanation.baseline_score == pytest.approx(pos - neg, abs=1e-5)

    def test_a_temperature_divides_the_attributions_too(self, tiny_checkpoint, tmp_path):
        model = classifier_of(tiny_checkpoint, id2label=["neg", "pos"]).model
        model.save_pretrained(tmp_path)
        tokenizer = Tokenizer(tiny_checkpoint)
        tokenizer.save_pretrained(tmp_path)
        options = {"max_length": 32, "truncation": Truncation.HEAD}
        plain, halved = (
            next(explain(Classifier.from_checkpoint(tmp_path, temperature=temperature, **options), TEXTS[:1]))
            for temperature in (1.0, 2.0)
        )
        np.testing.assert_allclose(np.array(attributions_of(plain)) / 2, attributions_of(halved), atol=1e-5)
        assert halved.score == pytest.approx(plain.score / 2, abs=1e-5)


class TestCompleteness:
    @pytest.mark.parametrize("kind", ["two_classes", "three_classes", "several_labels", "number"])
    def test_attributions_are_the_difference_of_the_scores(self, kind, request):
        for explanation in explain(request.getfixturevalue(kind), TEXTS):
            difference = explanation.score - explanation.baseline_score
            error = abs(sum(attributions_of(explanation)) - difference) / abs(difference)
            assert explanation.completeness_error == pytest.approx(error, abs=1e-6)
            assert error < 0.01

    def test_an_empty_text_is_its_own_baseline(self, two_classes):
        (explanation,) = explain(two_classes, [""])
        assert explanation.tokens == ()
        assert explanation.score == explanation.baseline_score
        assert explanation.completeness_error == 0

    def test_points_are_doubled_until_it_is_small(self, two_classes, monkeypatch):
        monkeypatch.setattr(explanation_module, "FEWEST_STEPS", 1)
        for explanation in explain(two_classes, TEXTS):
            assert explanation.completeness_error <= 0.01
            assert explanation.steps > 1

    def test_or_the_most_are_taken_and_the_error_told(self, two_classes, monkeypatch):
        monkeypatch.setattr(explanation_module, "FEWEST_STEPS", 1)
        monkeypatch.setattr(explanation_module, "MOST_STEPS", 2)
        monkeypatch.setattr(explanation_module, "TOLERANCE", 0.0)
        (explanation,) = explain(two_classes, TEXTS[:1])
        assert explanation.steps == 2
        assert explanation.completeness_error > 0

    def test_quadrature_is_exact_for_polynomials(self):
        found = integral(lambda x: np.stack([x**7, 3 * x**2], axis=-1), 4)
        np.testing.assert_allclose(found, [1 / 8, 1], rtol=1e-14)

    @pytest.mark.parametrize(
        ("total", "score", "baseline", "expected"),
        [(1.5, 3.0, 1.0, 0.25), (-3.0, -1.0, 1.0, 0.5), (0.0, 2.0, 2.0, 0.0)],
    )
    def test_error_by_hand(self, total, score, baseline, expected):
        assert completeness_error(total, score, baseline) == expected

    def test_error_of_no_difference_is_a_number(self):
        assert 1 < completeness_error(1.0, 2.0, 2.0) < np.inf


class TestTokens:
    def test_pieces_are_those_of_the_text(self, two_classes):
        (explanation,) = explain(two_classes, ["The  film, GREAT!"])
        assert [token.piece for token in explanation.tokens] == ["The", "film", ",", "GREAT", "!"]
        assert [(token.start, token.end) for token in explanation.tokens][:2] == [(0, 3), (5, 9)]

    def test_pairs_have_sides(self, two_classes):
        (explanation,) = explain(two_classes, ["good film"], ["bad plot"])
        assert [(token.side, token.piece) for token in explanation.tokens] == [
            (0, "good"), (0, "film"), (1, "bad"), (1, "plot"),
        ]  # fmt: skip

    def test_only_what_the_model_sees(self, tiny_checkpoint):
        classifier = classifier_of(tiny_checkpoint, max_length=5, truncation=Truncation.TAIL, id2label=["neg", "pos"])
        whole, cut = explain(classifier, ["a good film", "not a good film at all so bad"])
        assert (whole.truncated, cut.truncated) == (False, True)
        assert [token.piece for token in cut.tokens] == ["all", "so", "bad"]

    def test_words(self):
        tokens = [
            ("good", 0, 4, 0, 0, 1.0),
            ("play", 5, 9, 0, 1, 2.0),
            ("ing", 9, 12, 0, 1, -0.5),
            ("x", 0, 1, 1, 1, 3.0),
        ]
        explanation = Explanation("pos", tuple(Attribution(*token) for token in tokens), 1.0, 0.0, 0.0, 32, False)
        assert explanation.words() == (
            Attribution("good", 0, 4, 0, 0, 1.0),
            Attribution("playing", 5, 12, 0, 1, 1.5),
            Attribution("x", 0, 1, 1, 1, 3.0),
        )

    def test_a_score_of_one_token_is_put_down_to_it(self, tiny_checkpoint):
        """Of two words the model knows one: the other's embedding is that of [PAD]."""
        classifier = classifier_of(tiny_checkpoint, id2label=["neg", "pos"])
        rows, (film,) = rows_of(classifier), classifier.encode(["film"])[0][0][1:-1]
        rows[film] = rows[0]
        classifier.model.bert.embeddings.word_embeddings.embeddings.assign(rows)
        (explanation,) = explain(classifier, ["film great film"])
        film, great, other = attributions_of(explanation)
        assert film == other == 0
        assert great == pytest.approx(explanation.score - explanation.baseline_score, rel=0.01)

    def test_it_can_be_written_as_json(self, two_classes):
        (explanation,) = explain(two_classes, TEXTS[:1])
        read = json.loads(json.dumps(explanation.to_dict()))
        assert {**read, "tokens": tuple(Attribution(**token) for token in read["tokens"])} == dataclasses.asdict(
            explanation
        ) | {"tokens": explanation.tokens}


class TestTexts:
    def test_alone_or_together(self, two_classes):
        together = list(explain(two_classes, TEXTS, PAIRS))
        for text, pair, expected in zip(TEXTS, PAIRS, together, strict=True):
            (alone,) = explain(two_classes, [text], [pair])
            np.testing.assert_allclose(attributions_of(alone), attributions_of(expected), atol=1e-6)

    def test_few_points_at_once_give_the_same(self, two_classes, monkeypatch):
        (whole,) = explain(two_classes, TEXTS[:1])
        monkeypatch.setattr(explanation_module, "TOKENS_AT_ONCE", 20)
        (parts,) = explain(two_classes, TEXTS[:1])
        np.testing.assert_allclose(attributions_of(parts), attributions_of(whole), atol=1e-5)

    def test_traced_once(self, two_classes):
        list(explain(two_classes, TEXTS))
        list(explain(two_classes, TEXTS, PAIRS))
        assert two_classes.explainer._slopes.experimental_get_tracing_count() == 1

    @pytest.mark.parametrize("kind", ["three_classes", "several_labels", "number"])
    def test_the_most_probable_label_unless_asked(self, kind, request):
        classifier = request.getfixturevalue(kind)
        answers = list(classifier.answers(TEXTS))
        expected = [
            max(answer["probabilities"], key=answer["probabilities"].get) if "probabilities" in answer else "score"
            for answer in answers
        ]
        assert [explanation.label for explanation in explain(classifier, TEXTS)] == expected

    def test_another_class_of_two_has_the_opposite(self, two_classes):
        neg, pos = explain(two_classes, [TEXTS[0]] * 2, labels=["neg", "pos"])
        np.testing.assert_allclose(attributions_of(neg), -np.array(attributions_of(pos)), atol=1e-5)

    def test_no_texts(self, two_classes):
        assert list(explain(two_classes, [])) == []


class TestRefusals:
    def message(self, classifier, *arguments, **options):
        with pytest.raises(InputError) as caught:
            list(explain(classifier, *arguments, **options))
        return str(caught.value)

    def test_an_unknown_label(self, two_classes):
        found = self.message(two_classes, ["a"], labels=["maybe"])
        assert found == "no such label, in labels, expected neg or pos, got 'maybe'"

    def test_too_few_labels(self, two_classes):
        found = self.message(two_classes, ["a", "b"], labels=["neg"])
        assert found == "not as many labels as texts, expected 2, got 1"

    def test_too_few_pairs(self, two_classes):
        found = self.message(two_classes, ["a", "b"], ["c"], labels=["neg", "neg"])
        assert found == "not as many second texts as texts, expected 2, got 1"

    def test_one_class_alone(self, tiny_checkpoint):
        alone = classifier_of(tiny_checkpoint, id2label=["yes"], problem_type="single_label_classification")
        found = self.message(alone, ["a"])
        assert found == "there is no other class to explain this one against, expected two classes or more"

    def test_another_precision(self, tiny_checkpoint):
        from tf_finetune import runtime

        with runtime.precision_policy("mixed_bfloat16"):
            rounded = classifier_of(tiny_checkpoint, id2label=["neg", "pos"])
        found = self.message(rounded, ["a"])
        assert found == "answers are explained in float32 alone, in classifier.model, got bfloat16"
