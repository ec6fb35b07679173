import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.evaluation import slices
from tf_finetune.evaluation.slices import Slice, by_label, by_length, by_value, slices_of


class TestSlicesOf:
    def test_share_interval_and_count_by_hand(self):
        right = np.array([True] * 60 + [False] * 40 + [True] * 100)
        mask = np.arange(200) < 100
        (found,) = slices_of(right, {("color", "red"): mask})
        # Wilson's interval of 60 of 100: (0.6 + z^2/200 +- z sqrt(0.24/100 + z^2/40000)) / (1 + z^2/100)
        z = 1.959963984540054
        middle, half = 0.6 + z**2 / 200, z * np.sqrt(0.24 / 100 + z**2 / 40000)
        low, high = (middle - half) / (1 + z**2 / 100), (middle + half) / (1 + z**2 / 100)
        assert found == Slice("color", "red", 100, 0.6, pytest.approx(low), pytest.approx(high), True)

    def test_a_slice_as_good_as_the_rest_is_not_worse(self):
        right = np.tile([True, True, True, False], 100)
        found = slices_of(right, {("half", "first"): np.arange(400) < 200, ("half", "second"): np.arange(400) >= 200})
        assert [one.is_worse for one in found] == [False, False]

    def test_a_better_slice_is_not_worse(self):
        right = np.arange(400) < 300
        (found,) = slices_of(right, {("part", "first"): np.arange(400) < 200})
        assert not found.is_worse

    def test_few_examples_are_left_out(self):
        right = np.arange(100) % 2 == 0
        masks = {("n", "few"): np.arange(100) < slices.FEWEST - 1, ("n", "enough"): np.arange(100) < slices.FEWEST}
        assert [one.value for one in slices_of(right, masks)] == ["enough"]

    def test_all_examples(self):
        (found,) = slices_of(np.arange(50) % 2 == 0, {("all", "all"): np.ones(50, bool)})
        assert found.examples == 50
        assert not found.is_worse

    def test_errors(self):
        errors = np.concatenate([np.full(50, 2.0), np.full(50, 1.0)]) + np.linspace(0, 0.1, 100)
        found = slices_of(errors, {("half", "first"): np.arange(100) < 50, ("half", "second"): np.arange(100) >= 50})
        assert [one.is_worse for one in found] == [True, False]
        assert found[0].low < found[0].score < found[0].high
        assert found[0].score == pytest.approx(errors[:50].mean())

    def test_a_smaller_mean_error_is_not_worse_whatever_the_ranks_say(self):
        random = np.random.default_rng(0)
        others = np.where(random.random(800) < 0.9, 0.1, 9.0)
        errors = np.concatenate([np.full(200, 0.5), others])
        (found,) = slices_of(errors, {("shop", "a"): np.arange(1000) < 200})
        assert not found.is_worse

    def test_chance_calls_a_slice_worse_in_few_of_many_tables(self):
        random = np.random.default_rng(1)
        group = np.arange(1000) % 10
        masks = {("group", str(k)): group == k for k in range(10)}
        tables = [slices_of(random.random(1000) < 0.85, masks) for _ in range(100)]
        called = sum(any(one.is_worse for one in table) for table in tables)
        assert called <= 10  # five are expected, and more than ten come once in 90 such tests


class TestRanges:
    def test_quarters_of_lengths(self):
        masks = by_length(np.arange(1, 101))
        assert [name for _, name in masks] == ["1 to 25", "26 to 50", "51 to 75", "76 to 100"]
        assert [mask.sum() for mask in masks.values()] == [25, 25, 25, 25]

    def test_one_length(self):
        masks = by_length(np.full(40, 7))
        assert list(masks) == [("tokens a text", "7")]
        assert masks["tokens a text", "7"].all()

    def test_every_example_is_in_one_range(self):
        lengths = np.random.default_rng(0).integers(3, 9, 500)
        assert (np.sum(list(by_length(lengths).values()), axis=0) == 1).all()

    def test_numbers_as_labels(self):
        masks = by_label(np.linspace(-1, 1, 101, dtype=np.float32), ["label"], ProblemType.REGRESSION)
        assert [name for _, name in masks] == ["-1 to -0.5", "-0.48 to 0", "0.02 to 0.5", "0.52 to 1"]
        assert (np.sum(list(masks.values()), axis=0) == 1).all()


class TestByLabel:
    def test_classes(self):
        masks = by_label(np.array([0, 1, 1]), ["no", "yes"], ProblemType.SINGLE_LABEL_CLASSIFICATION)
        assert {name: mask.tolist() for (_, name), mask in masks.items()} == {
            "no": [True, False, False],
            "yes": [False, True, True],
        }

    def test_several(self):
        labels = np.array([[1, 1], [0, 1]], np.float32)
        masks = by_label(labels, ["a", "b"], ProblemType.MULTI_LABEL_CLASSIFICATION)
        assert masks["true label", "a"].tolist() == [True, False]
        assert masks["true label", "b"].tolist() == [True, True]


class TestByValue:
    def test_frequent_first_rare_together(self):
        values = ["b"] * 30 + ["a"] * 40 + ["c"] * 3 + [""] * 31 + ["d"]
        masks = by_value("region", values)
        assert [name for _, name in masks] == ["a", "(empty)", "b", "(2 rarer values)"]
        assert [int(mask.sum()) for mask in masks.values()] == [40, 31, 30, 4]

    def test_many_numbers_are_ranges(self):
        masks = by_value("price", [str(number) for number in range(100)])
        assert [name for _, name in masks] == ["0 to 24", "25 to 49", "50 to 74", "75 to 99"]

    def test_missing_numbers_are_apart(self):
        masks = by_value("price", [*map(str, range(100)), "", ""])
        assert [name for _, name in masks] == ["0 to 24", "25 to 49", "50 to 74", "75 to 99", "(empty)"]
        assert masks["price", "(empty)"].nonzero()[0].tolist() == [100, 101]

    def test_large_numbers_keep_their_digits(self):
        masks = by_value("time", [str(1_700_000_000_000 + number) for number in range(100)])
        assert [int(mask.sum()) for mask in masks.values()] == [25, 25, 25, 25]
        assert next(iter(masks)) == ("time", "1700000000000 to 1700000000024")

    def test_few_numbers_are_values(self):
        masks = by_value("stars", [str(number % 5) for number in range(200)])
        assert sorted(name for _, name in masks) == ["0", "1", "2", "3", "4"]

    def test_many_values_that_are_no_numbers(self):
        values = [f"product {number % 40}" for number in range(40 * 40)]
        masks = by_value("product", values)
        assert len(masks) == slices.MOST_VALUES + 1
        assert masks["product", "(20 rarer values)"].sum() == 800

    def test_a_long_value_costs_no_memory_and_is_cut(self):
        values = ["x" * 2**20] * 40 + ["y"] * 40
        assert {name for _, name in by_value("note", values)} == {"x" * slices.LONGEST_NAME, "y"}

    def test_values_cut_to_the_same_name_are_together(self):
        values = ["x" * 200 + end for end in "ab" for _ in range(40)]
        (mask,) = by_value("url", values).values()
        assert mask.all()

    def test_missing_values_stay_apart_beside_many_values(self):
        values = [f"country {number % 25}" for number in range(2500)] + [""] * 60
        masks = by_value("country", values)
        assert masks["country", "(empty)"].sum() == 60
        assert masks["country", "(5 rarer values)"].sum() == 500

    def test_every_example_is_in_one_group(self):
        random = np.random.default_rng(0)
        values = [random.choice(["", "a", "b", f"r{random.integers(50)}"]) for _ in range(500)]
        assert (np.sum(list(by_value("c", values).values()), axis=0) == 1).all()
