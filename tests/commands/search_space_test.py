import pytest

from tf_finetune import InputError, settings
from tf_finetune.commands.search_space import Range, parse
from tf_finetune.config import ExperimentConfig, Schedule


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer.learning_rate=1e-5..2e-4,log", Range(1e-5, 2e-4, True)),
        ("optimizer.learning_rate=1e-5..2e-4", Range(1e-5, 2e-4, False)),
        ("train.epochs=2..5", Range(2, 5, False)),
        ("train.batch_size=8,16,32", (8, 16, 32)),
        ("optimizer.weight_decay=0,0.1", (0.0, 0.1)),
        ("optimizer.schedule=linear,cosine", ("linear", "cosine")),
        ("train.gradient_checkpointing=true,false", (True, False)),
        ("model.checkpoint=../one,../other", ("../one", "../other")),
        ("data.max_length=64", (64,)),
    ],
)
def test_forms(word, expected):
    [found] = parse([word]).values()
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(found, tuple):
        assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to search, in --search, expected FIELD=LOW..HIGH"),
        (["optimizer.lr=1..2"], "no config field optimizer.lr, in --search, expected one like optimizer.learning_rate"),
        (["train.epochs"], "no values"),
        (["train.epochs=1,2", "train.epochs=3,4"], "train.epochs came twice"),
        (["train.epochs=5..2"], "an empty range, .* LOW below HIGH"),
        (["optimizer.weight_decay=0..1,log"], "an empty range, .* above 0 where the scale is logarithmic"),
        (["train.epochs=1..x"], "not whole numbers"),
        (["train.epochs=1.5,2"], "not whole numbers"),
        (["optimizer.learning_rate=nan,1"], "not numbers"),
        (["train.epochs=1..2,lin"], "not a range of numbers"),
        (["train.gradient_checkpointing=yes"], "neither true nor false"),
        (["optimizer.schedule=linear,step"], "no such value, .* expected linear or cosine or constant"),
        (["train.epochs=0..3"], "wrong value for train.epochs, expected 1 or more, got 0"),
        (["train.best_metric=f1,loss"], "train.best_metric cannot be searched"),
        (["export.verify=true,false"], "export.verify cannot be searched"),
        (["data.folds=2,3"], "data.folds cannot be searched"),
        (["optimizer.beta_1=0.5,1.0"], "wrong value for optimizer.beta_1"),
    ],
)
def test_what_is_refused(words, said):
    with pytest.raises(InputError, match=said):
        parse(words)


def test_values_of_a_trial_are_the_fields():
    changed = settings.with_values(ExperimentConfig(), {"optimizer.schedule": Schedule.COSINE, "train.epochs": 7})
    assert (changed.optimizer.schedule, changed.train.epochs) == (Schedule.COSINE, 7)
    assert ExperimentConfig().train.epochs == 3
