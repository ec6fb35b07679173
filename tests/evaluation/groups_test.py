"""Numbers by group are those of its examples alone, and a planted bias shows in the number that is made for it."""

import importlib.util
import json

import numpy as np
import pytest
from sklearn import metrics as reference

from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.evaluation.groups import AUCS, OF_TWO_CLASSES, group_metrics
from tf_finetune.evaluation.metrics import sigmoid, softmax

ONE, SEVERAL = ProblemType.SINGLE_LABEL_CLASSIFICATION, ProblemType.MULTI_LABEL_CLASSIFICATION


def case(bias=0.0, count=900, seed=0):
    """Two classes in three parts, "a", "b" and no group; a model that is right mostly, with more logit for "a"."""
    random = np.random.default_rng(seed)
    labels, groups = random.integers(2, size=count), np.array(["a", "b", ""])[np.arange(count) % 3]
    second = sigmoid(random.normal(size=count) + 1.2 * (2 * labels - 1) + bias * (groups == "a"))
    return np.stack([1 - second, second], axis=-1), labels, groups.tolist()


class TestTwoClasses:
    def test_equals_sklearn_on_the_examples_of_the_group(self):
        probabilities, labels, groups = case(bias=1.0)
        found = group_metrics(probabilities, labels, groups, problem_type=ONE)
        assert (list(found["groups"]), found["without_group"]) == (["a", "b"], 300)
        for name, row in found["groups"].items():
            own = np.array(groups) == name
            true, answered, scores = labels[own], probabilities[own].argmax(axis=-1), probabilities[own, 1]
            negative, false_positive, false_negative, positive = reference.confusion_matrix(true, answered).ravel()
            assert (row["examples"], row["positives"], row["negatives"]) == (300, true.sum(), 300 - true.sum())
            assert row["accuracy"] == pytest.approx(reference.accuracy_score(true, answered))
            assert row["selection_rate"] == pytest.approx(answered.mean())
            assert row["false_positive_rate"] == pytest.approx(false_positive / (false_positive + negative))
            assert row["false_negative_rate"] == pytest.approx(false_negative / (false_negative + positive))
            assert row["subgroup_auc"] == pytest.approx(reference.roc_auc_score(true, scores))

    def test_the_other_aucs_equal_sklearn_on_half_of_each(self):
        probabilities, labels, groups = case(bias=1.0)
        found = group_metrics(probabilities, labels, groups, problem_type=ONE)["groups"]["a"]
        own = np.array(groups) == "a"
        for name, kept in (("bpsn_auc", own == (labels == 0)), ("bnsp_auc", own == (labels == 1))):
            assert found[name] == pytest.approx(reference.roc_auc_score(labels[kept], probabilities[kept, 1]))

    def test_ties_are_half(self):
        probabilities, labels, groups = case()
        found = group_metrics(np.full_like(probabilities, 0.5), labels, groups, problem_type=ONE)
        assert [found["groups"]["a"][name] for name in AUCS] == [0.5] * 3

    def test_overall_has_the_examples_of_no_group(self):
        probabilities, labels, groups = case(bias=1.0)
        found = group_metrics(probabilities, labels, groups, problem_type=ONE)
        assert found["overall"]["examples"] == 900
        assert found["overall"]["accuracy"] == pytest.approx((probabilities.argmax(axis=-1) == labels).mean())

    def test_intervals_hold_their_numbers(self):
        probabilities, labels, groups = case(bias=1.0)
        for row in group_metrics(probabilities, labels, groups, problem_type=ONE)["groups"].values():
            for name in (*OF_TWO_CLASSES, *AUCS):
                low, high = row[f"{name}_interval"]
                assert 0 <= low < row[name] < high <= 1

    def test_a_planted_bias(self):
        """Towards the positive class: more false alarms, and negatives of the group above others' positives."""
        probabilities, labels, groups = case(bias=2.0)
        found = group_metrics(probabilities, labels, groups, problem_type=ONE)
        biased, plain = found["groups"]["a"], found["groups"]["b"]
        assert biased["false_positive_rate_interval"][0] > plain["false_positive_rate_interval"][1]
        assert biased["bpsn_auc_interval"][1] < plain["bpsn_auc_interval"][0]
        assert biased["bpsn_auc_interval"][1] < biased["bnsp_auc_interval"][0]
        difference = biased["false_positive_rate"] - plain["false_positive_rate"]
        assert found["differences"]["false_positive_rate"] == pytest.approx(difference)

    def test_groups_with_the_same_answers_do_not_differ(self):
        probabilities, labels, _ = case()
        groups = ["a"] * len(labels) + ["b"] * len(labels)
        found = group_metrics(np.tile(probabilities, (2, 1)), np.tile(labels, 2), groups, problem_type=ONE)
        assert found["differences"] == dict.fromkeys((*OF_TWO_CLASSES, *AUCS), 0)
        assert found["groups"]["a"] == found["groups"]["b"]


class TestTooFew:
    def test_a_small_group_has_no_numbers(self):
        probabilities, labels, groups = case()
        groups[:9] = ["c"] * 9
        found = group_metrics(probabilities, labels, groups, problem_type=ONE)
        row = found["groups"]["c"]
        assert row["examples"] == 9
        for name in (*OF_TWO_CLASSES, *AUCS):
            assert row[name] is row[f"{name}_interval"] is None
            a, b = found["groups"]["a"][name], found["groups"]["b"][name]
            assert found["differences"][name] == pytest.approx(abs(a - b))

    def test_a_group_without_negatives_has_no_share_of_them(self):
        probabilities, labels, groups = case()
        labels[np.array(groups) == "a"] = 1
        found = group_metrics(probabilities, labels, groups, problem_type=ONE)
        row = found["groups"]["a"]
        assert row["false_positive_rate"] is row["subgroup_auc"] is row["bpsn_auc"] is None
        assert row["false_negative_rate"] is not None
        assert row["bnsp_auc"] is not None
        assert found["differences"]["false_positive_rate"] is None

    def test_the_fewest_may_be_said(self):
        probabilities, labels, groups = case()
        groups[:9] = ["c"] * 9
        found = group_metrics(probabilities, labels, groups, problem_type=ONE, fewest=2)
        assert found["groups"]["c"]["accuracy"] is not None

    def test_no_groups_at_all(self):
        probabilities, labels, _ = case()
        found = group_metrics(probabilities, labels, [""] * len(labels), problem_type=ONE)
        assert (found["groups"], found["without_group"]) == ({}, 900)
        assert found["differences"] == dict.fromkeys((*OF_TWO_CLASSES, *AUCS))


class TestOtherAnswers:
    def test_of_many_classes_accuracy(self):
        random = np.random.default_rng(0)
        labels, groups = random.integers(3, size=300), ["a", "b", ""] * 100
        probabilities = softmax(random.normal(size=(300, 3)) + 2 * np.eye(3)[labels])
        found = group_metrics(probabilities, labels, groups, problem_type=ONE)
        is_right = probabilities.argmax(axis=-1) == labels
        assert found["groups"]["a"]["accuracy"] == pytest.approx(is_right[::3].mean())
        assert set(found["groups"]["a"]) == {"examples", "accuracy", "accuracy_interval"}
        assert set(found["differences"]) == {"accuracy"}

    def test_of_several_labels_all_must_be_right(self):
        random = np.random.default_rng(0)
        labels, groups = random.integers(2, size=(300, 2)), ["a", "b", ""] * 100
        probabilities = sigmoid(random.normal(size=(300, 2)) + 2 * (2 * labels - 1))
        found = group_metrics(probabilities, labels, groups, problem_type=SEVERAL)
        is_right = ((probabilities >= 0.5) == labels).all(axis=-1)
        assert found["groups"]["b"]["accuracy"] == pytest.approx(is_right[1::3].mean())

    def test_numbers_are_refused(self):
        expected = "groups are compared by the classes answered, expected a classifier, got a regression"
        with pytest.raises(InputError, match=expected):
            group_metrics(np.zeros((2, 1)), np.zeros(2), ["a", "b"], problem_type=ProblemType.REGRESSION)


def test_without_fairlearn(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    expected = r"needs fairlearn, not installed here, expected pip install 'tf_finetune\[audit\]'"
    with pytest.raises(InputError, match=expected):
        group_metrics(*case(), problem_type=ONE)


def test_json_ready():
    found = group_metrics(*case(), problem_type=ONE)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
