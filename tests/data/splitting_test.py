import json
import random
from collections import Counter

import numpy as np
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.data import sources, splitting
from tf_finetune.errors import InputError
from tf_finetune.readers import text_hash

# Two hundred texts of which, by hash, every split gets some.
ROWS = [(f"text number {i}", "ab"[i % 2]) for i in range(200)]


def tenth(text):
    return text_hash.tenth_of(text_hash.sha256_of(text))


@pytest.fixture
def load(tmp_path, write_table):
    """Loads a folder of one csv file a split."""

    def load(seed=0, max_examples=0, validation_examples=0, folds=0, fold=0, **splits):
        for name, rows in splits.items():
            write_table(tmp_path / f"{name}.csv", rows)
        source = str(tmp_path / f"{name}.csv") if len(splits) == 1 else str(tmp_path)
        limits = {"max_examples": max_examples, "validation_examples": validation_examples}
        limits |= {"folds": folds, "fold": fold}
        return sources.load(source, seed=seed, **limits).examples

    return load


class TestByHash:
    def test_80_10_10(self, load):
        examples = load(all=ROWS)
        assert list(examples) == ["train", "validation", "test"]
        assert sorted(text for split in examples.values() for text in split.texts) == sorted(text for text, _ in ROWS)
        assert 140 <= len(examples["train"]) <= 180

    def test_the_text_alone_decides(self, load):
        forward, backward = load(a=ROWS), load(b=ROWS[::-1], seed=9)
        assert {name: set(split.texts) for name, split in forward.items()} == {
            name: set(split.texts) for name, split in backward.items()
        }

    def test_rule_is_the_documented_one(self):
        # sha256 as an integer, mod 10: a change would move examples between test and train.
        assert [tenth(text) for text in ("a", "b", "", "é")] == [9, 5, 9, 8]

    def test_text_that_comes_twice_is_in_one_split(self, load):
        examples = load(all=ROWS + ROWS)
        assert not set(examples["train"].texts) & {*examples["validation"].texts, *examples["test"].texts}

    def test_max_examples_caps_each(self, load):
        assert {name: len(split) for name, split in load(all=ROWS, max_examples=9).items()} == {
            "train": 9, "validation": 9, "test": 9,
        }  # fmt: skip

    def test_validation_examples_are_refused(self, load):
        expected = "the validation split of .* is fixed already, in data.validation_examples, expected 0, got 5"
        with pytest.raises(InputError, match=expected):
            load(all=ROWS, validation_examples=5)

    def test_too_few_rows(self, load):
        with pytest.raises(
            InputError, match="the validation split is empty, in .*, expected at least one example a split"
        ):
            load(all=ROWS[:3])


class TestNamedSplits:
    def test_taken_as_they_are(self, load):
        examples = load(train=ROWS, validation=[("z", "a")], test=[("w", "b")])
        assert [examples[name].texts for name in ("validation", "test")] == [["z"], ["w"]]
        assert len(examples["train"]) == len(ROWS)

    def test_test_alone(self, load):
        examples = load(test=ROWS)
        assert list(examples) == ["test"]
        assert examples["test"].texts == [text for text, _ in ROWS]

    def test_empty_one(self, load):
        with pytest.raises(InputError, match="the test split is empty, in .*, expected at least one example a split"):
            load(train=ROWS, test=[])

    def test_validation_examples_are_refused(self, load):
        with pytest.raises(InputError, match="is fixed already, in data.validation_examples, expected 0, got 5"):
            load(train=ROWS, validation=ROWS[:1], validation_examples=5)


class TestValidationOutOfTrain:
    def test_a_tenth_by_hash(self, load):
        examples = load(train=ROWS, test=[("w", "b")])
        assert list(examples) == ["train", "validation", "test"]
        assert examples["validation"].texts == [text for text, _ in ROWS if tenth(text) == 1]
        assert not set(examples["train"].texts) & set(examples["validation"].texts)
        assert len(examples["train"]) + len(examples["validation"]) == len(ROWS)

    @pytest.mark.parametrize("number", [1, 40, 199])
    def test_exactly_so_many(self, load, number):
        examples = load(train=ROWS, validation_examples=number)
        assert (len(examples["train"]), len(examples["validation"])) == (200 - number, number)
        assert {*examples["train"].texts, *examples["validation"].texts} == {text for text, _ in ROWS}

    def test_more_of_them_hold_the_fewer(self, load):
        few, more = load(train=ROWS, validation_examples=10), load(train=ROWS, validation_examples=20)
        assert set(few["validation"].texts) < set(more["validation"].texts)

    def test_the_tutorial(self, load):
        examples = load(train=ROWS, test=ROWS, max_examples=100, validation_examples=20)
        assert {name: len(split) for name, split in examples.items()} == {"train": 80, "validation": 20, "test": 100}

    @pytest.mark.parametrize(("drawn", "held"), [(100, 10), (99, 9), (5, 1)])
    def test_a_tenth_of_what_was_drawn(self, load, drawn, held):
        examples = load(train=ROWS, max_examples=drawn)
        assert {name: len(split) for name, split in examples.items()} == {"train": drawn - held, "validation": held}

    def test_a_draw_of_all_is_no_draw(self, load):
        assert load(train=ROWS, max_examples=200) == load(train=ROWS)

    def test_copies_of_a_text_stay_together(self, load):
        examples = load(train=ROWS + ROWS + [("single", "a")], validation_examples=41)
        assert not set(examples["train"].texts) & set(examples["validation"].texts)
        assert len(examples["validation"]) == 41

    def test_texts_keep_their_labels(self, load):
        truth = dict(ROWS)
        for split in load(train=ROWS, validation_examples=50).values():
            assert ["ab"[label] for label in split.labels] == [truth[text] for text in split.texts]

    @pytest.mark.parametrize(("number", "max_examples", "size"), [(200, 0, 200), (500, 0, 200), (20, 20, 20)])
    def test_too_many(self, load, number, max_examples, size):
        expected = (
            f"too many validation examples, in data.validation_examples, expected fewer than the {size} training "
            f"examples, got {number}"
        )
        with pytest.raises(InputError, match=expected):
            load(train=ROWS, validation_examples=number, max_examples=max_examples)

    def test_without_train_there_is_nothing_to_take(self, load):
        assert list(load(test=ROWS, validation_examples=5)) == ["test"]

    def test_a_class_that_only_the_validation_split_gets(self, load):
        rare = next(f"rare {i}" for i in range(100) if tenth(f"rare {i}") == 1)
        assert 2 in load(train=[*ROWS, (rare, "c")])["validation"].labels


class TestMaxExamples:
    def test_draws_so_many(self, load):
        test = load(test=ROWS, max_examples=20)["test"]
        assert len(test) == len(set(test.texts)) == 20

    def test_same_seed_same_draw(self, load):
        assert load(test=ROWS, max_examples=20, seed=3) == load(test=ROWS, max_examples=20, seed=3)

    def test_other_seed_other_draw(self, load):
        assert load(test=ROWS, max_examples=20, seed=3) != load(test=ROWS, max_examples=20, seed=4)

    def test_texts_keep_their_labels(self, load):
        test, truth = load(test=ROWS, max_examples=20)["test"], dict(ROWS)
        assert ["ab"[label] for label in test.labels] == [truth[text] for text in test.texts]

    @pytest.mark.parametrize("max_examples", [0, 200, 1000])
    def test_all(self, load, max_examples):
        assert load(test=ROWS, max_examples=max_examples)["test"].texts == [text for text, _ in ROWS]


def plain_lowest(texts, number):
    """What `splitting.lowest` does, said plainly: text by text from the lowest hash, whole texts or none."""
    copies = Counter(texts)
    chosen = set()
    for text in sorted(copies, key=text_hash.sha256_of):
        if copies[text] <= number:
            chosen.add(text)
            number -= copies[text]
    return [text in chosen for text in texts]


class TestLowest:
    @pytest.mark.parametrize("seed", range(20))
    @pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 50, 99, 100, 200])
    def test_equals_the_plain_one(self, seed, number):
        draw = random.Random(seed)
        texts = [str(draw.randrange(draw.choice([3, 20, 1000]))) for _ in range(100)]
        hashes = np.array([int.from_bytes(text_hash.sha256_of(text)[:8], "big") for text in texts], np.uint64)
        assert splitting.lowest(hashes, number).tolist() == plain_lowest(texts, number)

    def test_hashes_at_both_ends(self):
        hashes = np.array([2**64 - 1, 0, 2**64 - 1, 0, 5], np.uint64)
        assert splitting.lowest(hashes, 3).tolist() == [False, True, False, True, True]


def test_draws_are_those_of_random(load):
    """random.Random(seed).sample over the rows, in its order: runs of earlier versions can be repeated."""
    drawn = random.Random(7).sample([text for text, _ in ROWS], 30)
    assert load(test=ROWS, max_examples=30, seed=7)["test"].texts == drawn


class TestFolds:
    def held(self, load, folds, **splits):
        """The splits of each fold."""
        return [load(folds=folds, fold=fold, **splits) for fold in range(folds)]

    def test_every_training_example_is_held_out_once(self, load):
        plain, held = load(train=ROWS), self.held(load, 5, train=ROWS)
        together = [text for examples in held for text in examples["test"].texts]
        assert sorted(together) == sorted(plain["train"].texts)
        for examples in held:
            assert not set(examples["train"].texts) & set(examples["test"].texts)
            assert sorted([*examples["train"].texts, *examples["test"].texts]) == sorted(plain["train"].texts)
            assert list(examples["validation"].texts) == list(plain["validation"].texts)

    def test_classes_are_alike_in_each(self, load):
        rows = [(f"text number {i}", "a" if i % 10 else "b") for i in range(400)]
        held = self.held(load, 4, train=rows, validation=ROWS)
        assert {Counter(examples["test"].labels.tolist())[1] for examples in held} == {10}

    def test_one_text_is_in_one_fold(self, load):
        for examples in self.held(load, 3, train=ROWS + ROWS, validation=ROWS[:4]):
            assert not set(examples["train"].texts) & set(examples["test"].texts)

    def test_the_source_s_own_test_split_is_not_touched(self, load):
        for examples in self.held(load, 2, train=ROWS, test=[("w", "a"), ("v", "b")]):
            assert not {"w", "v"} & {*examples["train"].texts, *examples["test"].texts}

    def test_the_seed_decides(self, load):
        first, again, other = (list(load(folds=5, seed=s, train=ROWS)["test"].texts) for s in (0, 0, 1))
        assert first == again != other

    def test_a_class_of_fewer_texts_than_folds(self, load):
        rows = [*ROWS, ("the only one", "c")]
        held = self.held(load, 5, train=rows, validation=ROWS[:4])
        assert sum("the only one" in examples["test"].texts for examples in held) == 1

    @pytest.mark.parametrize("label", [0.5, ["a"]])
    def test_labels_that_are_no_classes(self, tmp_path, label):
        path = tmp_path / "train.jsonl"
        rows = [{"text": f"text {i}", "label": label if i % 2 else type(label)()} for i in range(60)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        kind = ProblemType.REGRESSION if label == 0.5 else ProblemType.AUTO
        sizes = [len(sources.load(f"{path}", folds=4, fold=n, problem_type=kind).examples["test"]) for n in range(4)]
        assert max(sizes) - min(sizes) <= 1

    def test_more_folds_than_texts(self, load):
        with pytest.raises(InputError, match=r"more folds than texts, in data\.folds, expected at most \d+, got 500"):
            load(folds=500, train=ROWS)

    def test_more_folds_than_texts_of_any_class(self, load):
        rows = [(f"text {i}", f"class {i % 10}") for i in range(40)]
        said = r"more folds than texts of any class, in data\.folds, expected at most 4, got 5"
        with pytest.raises(InputError, match=said):
            load(folds=5, train=rows, validation=rows[:10])

    def test_nothing_to_share_out(self, load):
        with pytest.raises(InputError, match="no folds without a train split, in .*, got test"):
            load(folds=2, test=ROWS)
