import contextlib
import json
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from tf_finetune.errors import RunError
from tf_finetune.training import callbacks, state_arrays
from tf_finetune.training.callbacks import FiniteMetrics, MetricsLog, Pause, Progress, RestoreMetrics
from tf_finetune.training.cost import CostMeter, EpochWork
from tf_finetune.training.optimizer import WarmupLinearDecay, create_optimizer

BATCH_SIZES = [4, 4, 4, 4, 2]

# Five batches of four, of them the last of two.
DATA = (np.random.default_rng(0).normal(size=(18, 2)).astype("float32"), np.arange(18) % 2)
OPTIONS = {"batch_size": 4, "shuffle": False, "verbose": 0}


def linear_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    optimizer, _ = create_optimizer(0.01, 5, 0, skip_nonfinite_steps=True)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def progress_of(log, schedule, *, batch_sizes=BATCH_SIZES, meter=None, first_step=0, every):
    """Texts of 9 tokens in batches of 10, ten operations a token; the steps never wait."""
    examples = np.array(batch_sizes)
    work = EpochWork(examples=examples, tokens=9 * examples, computed_tokens=10 * examples, flops=100 * examples)
    meter = meter or CostMeter(epochs=1, matrix_rate=1000.0)
    metrics = FiniteMetrics(first_step=first_step, most=0, way_on="this is kept")
    options = {"metrics": metrics, "first_step": first_step, "every": every, "waited": lambda: 0.0}
    return Progress(log, schedule=schedule, meter=meter, work=work, **options)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def events(folder):
    """Step, name and value of each scalar TensorBoard would read in a folder."""
    [path] = folder.glob("events.out.tfevents.*")
    return [
        (event.step, value.tag, value.simple_value)
        for event in map(event_pb2.Event.FromString, tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        for value in event.summary.value
    ]


class TestMetricsLog:
    def test_one_object_a_line(self, tmp_path):
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        log.write(split="train", epoch=0, step=1, loss=0.5)
        log.write(split="validation", epoch=0, step=2, loss=0.25, timing={"seconds": 0.5})
        assert lines(log.path) == [
            {"split": "train", "epoch": 0, "step": 1, "loss": 0.5},
            {"split": "validation", "epoch": 0, "step": 2, "loss": 0.25, "timing": {"seconds": 0.5}},
        ]

    def test_an_earlier_file_is_continued(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        for step in (1, 2):
            MetricsLog(path, tmp_path / "tensorboard").write(split="train", epoch=0, step=step)
        assert [line["step"] for line in lines(path)] == [1, 2]

    def test_tensorboard_gets_the_same_numbers(self, tmp_path):
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        log.write(split="train", epoch=0, step=10, loss=0.5, timing={"examples_per_second": 80.0})
        log.write(split="train", epoch=0, step=20, loss=0.25, timing={"examples_per_second": 90.0})
        log.write(split="validation", epoch=0, step=20, accuracy=0.75)
        assert events(tmp_path / "tensorboard" / "train") == [
            (10, "loss", 0.5), (10, "examples_per_second", 80.0),
            (20, "loss", 0.25), (20, "examples_per_second", 90.0),
        ]  # fmt: skip
        assert events(tmp_path / "tensorboard" / "validation") == [(20, "accuracy", 0.75)]

    def test_cut_takes_back_what_came_later(self, tmp_path):
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        log.write(split="train", epoch=0, step=10, loss=0.5, timing={"examples_per_second": 80.0})
        size = log.size()
        log.write(split="train", epoch=0, step=20, loss=0.25)
        log.write(split="validation", epoch=0, step=20, accuracy=0.75)
        again = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        again.cut(size, warn=pytest.fail)
        again.write(split="train", epoch=0, step=20, loss=0.125)
        assert [(line["step"], line["loss"]) for line in lines(log.path)] == [(10, 0.5), (20, 0.125)]
        assert events(tmp_path / "tensorboard" / "train") == [
            (10, "loss", 0.5), (10, "examples_per_second", 80.0), (20, "loss", 0.125),
        ]  # fmt: skip
        assert not (tmp_path / "tensorboard" / "validation").exists()

    @pytest.mark.parametrize("content", [None, "", '{"split": "tr'])
    def test_cut_where_there_is_less(self, tmp_path, content):
        said = []
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        if content is not None:
            log.path.write_text(content)
        log.cut(100, warn=said.append)
        assert log.path.read_text() == ""
        assert "metrics.jsonl is shorter than the run had made it" in said[0]

    def test_cut_within_a_line(self, tmp_path):
        said = []
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        for step in (10, 20):
            log.write(split="train", epoch=0, step=step, loss=0.5)
        size = log.size()
        os.truncate(log.path, size - 5)
        log.cut(size, warn=said.append)
        assert [line["step"] for line in lines(log.path)] == [10]
        assert "what it lacks is lost" in said[0]

    @pytest.mark.parametrize(
        "line",
        [
            "{",
            "[]",
            '{"split": "train"}',
            "3",
            '{"split": "train", "step": 3, "loss": "x"}',
            '{"split": "a", "step": 3, "timing": []}',
        ],
    )
    def test_cut_where_a_line_is_damaged(self, tmp_path, line):
        """It costs a line of a log, and no training."""
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        log.write(split="train", epoch=0, step=10, loss=0.5)
        with log.path.open("a") as file:
            file.write(f"{line}\n")
        content, said = log.path.read_bytes(), []
        log.cut(log.size(), warn=said.append)
        assert log.path.read_bytes() == content
        assert said == [f"{log.path} line 2 is damaged: it stays as it is, and is missing in TensorBoard"]

    @pytest.mark.parametrize(
        ("where", "reason"),
        [("metrics.jsonl", "No space left on device"), ("tensorboard", ".* is not a directory")],
    )
    def test_what_cannot_be_written_is_named(self, tmp_path, where, reason):
        (tmp_path / where).symlink_to("/dev/full")
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        with pytest.raises(RunError, match=f"the metrics cannot be written, in {tmp_path}: {reason}$"):
            log.write(split="train", epoch=0, step=10, loss=0.5)

    def test_nothing_is_written_before_the_first_record(self, tmp_path):
        MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        assert list(tmp_path.iterdir()) == []


class TestProgress:
    """Two of three epochs of five batches; a step takes 1 s and the run's first 10 s, by a clock of our own."""

    @pytest.fixture
    def records(self, tmp_path, monkeypatch):
        seconds = {"now": 0.0}
        monkeypatch.setattr(callbacks.time, "perf_counter", lambda: seconds["now"])
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        schedule = WarmupLinearDecay(1.0, 15, 0)
        meter = CostMeter(epochs=3, matrix_rate=1000.0)
        for epoch in (0, 1):
            progress = progress_of(log, schedule, meter=meter, first_step=5 * epoch, every=2)
            progress.on_epoch_begin(epoch)
            for batch in range(5):
                seconds["now"] += 10.0 if epoch == batch == 0 else 1.0
                progress.metrics.numbers = {"loss": 5.0 * epoch + batch, "accuracy": 0.5}
                progress.on_train_batch_end(batch)
        return lines(log.path)

    def test_every_second_step_and_the_last_of_an_epoch(self, records):
        assert [record["step"] for record in records] == [2, 4, 5, 6, 8, 10]

    def test_epochs(self, records):
        assert [record["epoch"] for record in records] == [0, 0, 0, 1, 1, 1]

    def test_metrics_are_those_of_the_step(self, records):
        assert [record["loss"] for record in records] == [record["step"] - 1 for record in records]
        assert {record["accuracy"] for record in records} == {0.5}

    def test_learning_rate_is_the_one_the_step_used(self, records):
        expected = [(15 - (record["step"] - 1)) / 15 for record in records]
        np.testing.assert_allclose([record["learning_rate"] for record in records], expected, rtol=1e-6)

    def test_speed_is_that_since_the_last_line_and_leaves_out_the_first_step(self, records):
        assert [record["timing"]["examples_per_second"] for record in records] == [4.0, 4.0, 2.0, 4.0, 4.0, 3.0]

    def test_the_cost_is_recorded(self, records):
        assert [record["padding_share"] for record in records] == pytest.approx([0.1] * 6)
        assert records[0]["timing"].keys() == {
            "epoch_seconds", "examples_per_second", "tokens_per_second", "matrix_rate", "matrix_rate_share",
            "input_wait_share", "seconds_left",
        }  # fmt: skip

    def test_seconds_are_those_of_the_epoch(self, records):
        assert [record["timing"]["epoch_seconds"] for record in records] == [11, 13, 14, 1, 3, 5]

    def test_only_timing_depends_on_the_clock(self, records):
        assert {frozenset(record) for record in records} == {
            frozenset(
                {
                    "split",
                    "epoch",
                    "step",
                    "loss",
                    "accuracy",
                    "learning_rate",
                    "padding_share",
                    "skipped_steps",
                    "timing",
                }
            )
        }

    def test_printed_line(self, tmp_path, capsys):
        log, schedule = (
            MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard"),
            WarmupLinearDecay(2e-5, 300, 0),
        )
        progress = progress_of(log, schedule, batch_sizes=[4, 4], every=50)
        progress.on_epoch_begin(0)
        for batch in range(2):
            progress.metrics.numbers = {"loss": 0.69314, "accuracy": 0.25}
            progress.on_train_batch_end(batch)
        line = r"epoch 1  step 2/300  loss 0\.6931  accuracy 0\.2500  learning_rate 1\.99e-05  \d+ examples/s\n"
        cost = r"  \d+ tokens/s  10\.0% padding  \d+% of the matrix rate  0\.0% waiting for input  0 s left\n"
        assert re.fullmatch(line + cost, capsys.readouterr().out)

    def test_after_the_first_step_there_is_no_cost_to_print(self, tmp_path, capsys):
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        progress = progress_of(log, WarmupLinearDecay(2e-5, 300, 0), every=1)
        progress.on_epoch_begin(0)
        progress.metrics.numbers = {"loss": 0.69314}
        progress.on_train_batch_end(0)
        assert capsys.readouterr().out == "epoch 1  step 1/300  loss 0.6931  learning_rate 2.00e-05  0 examples/s\n"

    def test_in_fit(self, tmp_path):
        model = linear_model()
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        progress = progress_of(log, WarmupLinearDecay(1.0, 5, 0), every=3)
        history = model.fit(*DATA, **OPTIONS, callbacks=[progress.metrics, progress]).history
        assert [record["step"] for record in lines(log.path)] == [3, 5]
        assert lines(log.path)[-1]["loss"] == pytest.approx(history["loss"][0])

    def test_a_fit_that_goes_on_within_an_epoch_writes_what_one_fit_would(self, tmp_path):
        """Padding since the last line included, with a line after step 2 and a pause after step 3."""
        written = []
        for name, pauses in (("whole", []), ("paused", [3]), ("often", [1, 2, 3, 4])):
            model = linear_model()
            log = MetricsLog(tmp_path / f"{name}.jsonl", tmp_path / name)
            arrays, done, meter = {}, 0, CostMeter(epochs=1, matrix_rate=1000.0)
            for stop in (*pauses, 5):
                progress = progress_of(log, WarmupLinearDecay(1.0, 5, 0), meter=meter, every=2)
                progress.first_batch = done
                pause = Pause(lambda steps, done=done, stop=stop: done + steps == stop)
                rest = [array[4 * done :] for array in DATA]
                model.fit(*rest, **OPTIONS, callbacks=[RestoreMetrics(arrays), progress.metrics, progress, pause])
                arrays, done = state_arrays.metrics_of(model), stop
            written.append([{k: v for k, v in line.items() if k != "timing"} for line in lines(log.path)])
        assert [line["step"] for line in written[0]] == [2, 4, 5]
        assert written[1] == written[2] == written[0]


class TestFiniteMetrics:
    def test_a_step_without_a_loss_counts_for_nothing(self):
        """Of five steps the third has no number for a loss."""
        data = (DATA[0].copy(), DATA[1])
        data[0][9] = np.nan
        model, metrics = linear_model(), FiniteMetrics(first_step=0, most=1, way_on="this is kept")
        before = [weight.numpy() for weight in model.weights]
        model.fit(*data, **OPTIONS, callbacks=[metrics])
        assert metrics.skipped_steps == 1
        assert np.isfinite(metrics.numbers["loss"])
        without, seen = linear_model(), FiniteMetrics(first_step=0, most=0, way_on="this is kept")
        rest = [np.concatenate([array[:8], array[12:]]) for array in data]
        without.fit(*rest, **OPTIONS, callbacks=[seen])
        assert metrics.numbers["accuracy"] == pytest.approx(seen.numbers["accuracy"])
        assert all(np.isfinite(weight).all() for weight in model.weights)
        assert any(not np.array_equal(weight, old) for weight, old in zip(model.weights, before, strict=True))

    def test_a_fit_that_goes_on_has_no_numbers_while_there_was_no_loss(self):
        data = (np.full_like(DATA[0], np.nan), DATA[1])
        model, numbers = linear_model(), []
        model.fit(*DATA, **OPTIONS)
        for _ in range(2):
            metrics = FiniteMetrics(first_step=0, most=99, way_on="this is kept")
            model.fit(*data, **OPTIONS, callbacks=[metrics])
            numbers.append(metrics.numbers)
        assert numbers == [{}, {}]

    @pytest.mark.parametrize(("most", "stops"), [(0, True), (1, True), (2, False)])
    def test_too_many_in_a_row(self, most, stops):
        data = (DATA[0].copy(), DATA[1])
        data[0][5:9] = np.inf
        model, metrics = linear_model(), FiniteMetrics(first_step=100, most=most, way_on="this is kept")
        last = f"not finite in {most + 1} steps in a row, the last of them step {102 + most}"
        expected = f"{last}, train.max_skipped_steps={most} may be skipped; this is kept"
        with pytest.raises(RunError, match=expected) if stops else contextlib.nullcontext():
            model.fit(*data, **OPTIONS, callbacks=[metrics])
        assert metrics.skipped_steps == min(most + 1, 2)
