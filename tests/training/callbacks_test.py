import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from tf_finetune.training import callbacks
from tf_finetune.training.callbacks import MetricsLog, Progress
from tf_finetune.training.cost import CostMeter, EpochWork
from tf_finetune.training.optimizer import WarmupLinearDecay

BATCH_SIZES = [4, 4, 4, 4, 2]


def progress_of(log, schedule, *, batch_sizes=BATCH_SIZES, meter=None, first_step=0, every):
    """Texts of 9 tokens in batches of 10, ten operations a token; the steps never wait."""
    examples = np.array(batch_sizes)
    work = EpochWork(examples=examples, tokens=9 * examples, computed_tokens=10 * examples, flops=100 * examples)
    meter = meter or CostMeter(epochs=1, matrix_rate=1000.0)
    options = {"first_step": first_step, "every": every, "waited": lambda: 0.0}
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
                progress.on_train_batch_end(batch, {"loss": 5.0 * epoch + batch, "accuracy": np.float32(0.5)})
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
            frozenset({"split", "epoch", "step", "loss", "accuracy", "learning_rate", "padding_share", "timing"})
        }

    def test_printed_line(self, tmp_path, capsys):
        log, schedule = (
            MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard"),
            WarmupLinearDecay(2e-5, 300, 0),
        )
        progress = progress_of(log, schedule, batch_sizes=[4, 4], every=50)
        progress.on_epoch_begin(0)
        for batch in range(2):
            progress.on_train_batch_end(batch, {"loss": 0.69314, "accuracy": 0.25})
        line = r"epoch 1  step 2/300  loss 0\.6931  accuracy 0\.2500  learning_rate 1\.99e-05  \d+ examples/s\n"
        cost = r"  \d+ tokens/s  10\.0% padding  \d+% of the matrix rate  0\.0% waiting for input  0 s left\n"
        assert re.fullmatch(line + cost, capsys.readouterr().out)

    def test_after_the_first_step_there_is_no_cost_to_print(self, tmp_path, capsys):
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        progress = progress_of(log, WarmupLinearDecay(2e-5, 300, 0), every=1)
        progress.on_epoch_begin(0)
        progress.on_train_batch_end(0, {"loss": 0.69314})
        assert capsys.readouterr().out == "epoch 1  step 1/300  loss 0.6931  learning_rate 2.00e-05  0 examples/s\n"

    def test_in_fit(self, tmp_path):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
        progress = progress_of(log, WarmupLinearDecay(1.0, 5, 0), every=3)
        history = model.fit(
            np.zeros((18, 2)), np.zeros(18), batch_size=4, shuffle=False, verbose=0, callbacks=[progress]
        ).history
        assert [record["step"] for record in lines(log.path)] == [3, 5]
        assert lines(log.path)[-1]["loss"] == pytest.approx(history["loss"][0])
