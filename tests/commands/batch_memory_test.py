"""Batches as large as memory allows, and what is said where they are too large."""

import json
import random
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune import ExperimentConfig, InputError, TFBertForSequenceClassification, cli, devices, processes
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.memory import step_memory
from tf_finetune.bert.model import BertBackbone
from tf_finetune.commands import batch_memory
from tf_finetune.commands.train import train
from tf_finetune.config import Precision
from tf_finetune.data.order import training_order
from tf_finetune.errors import RunError
from tf_finetune.training import free_memory

GIB = 2**30


@pytest.fixture
def config(tmp_path, tiny_checkpoint):
    chosen = random.Random(0)
    words = ["the", "a", "film", "is", "was", "very", "so", "plot", "cast", "it", "and"]
    rows = [f"{' '.join(chosen.choices(words, k=chosen.randrange(3, 20)))},{i % 2}" for i in range(60)]
    (tmp_path / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    config = ExperimentConfig()
    config.model.checkpoint = str(tiny_checkpoint)
    config.data.source = str(tmp_path / "films.csv")
    config.data.max_length = 16
    config.train.epochs = 1
    config.runtime.precision = Precision.FLOAT32
    return config


@pytest.fixture
def has(monkeypatch):
    """A function that sets how many bytes are free; None means that nobody says."""

    def is_free(size):
        monkeypatch.setattr(free_memory, "of_machine", lambda: size)

    monkeypatch.setattr(devices, "gpus", lambda: [])
    return is_free


def memory_of(config):
    architecture = BertArchitecture.from_folder(config.model.checkpoint)
    return batch_memory._step_memory(config, architecture)


class TestBudget:
    def test_it_is_found_by_what_is_free(self, config, has, tmp_path, capsys):
        memory = memory_of(config)
        free = int(memory.of_batch(3, 16) / batch_memory.SHARE) + 1
        has(free)
        config.train.batch_tokens = 0
        best = train(config, tmp_path / "run")
        assert f"batch_tokens: 48 tokens a batch, by the {free / GIB:.1f} GiB free" in capsys.readouterr().out
        assert best["batch_tokens"] == json.loads((tmp_path / "run" / "best.json").read_text())["batch_tokens"] == 48
        assert best["step"] > 10

    def test_it_is_recorded_as_it_was_asked_for(self, config, has, tmp_path):
        config.train.batch_tokens = 0
        has(4 * GIB)
        tokens = train(config, tmp_path / "run")["batch_tokens"]
        has(8 * GIB)  # another budget, and no other config: it goes on with the one it has
        config.train.epochs += 1
        assert train(config, tmp_path / "run")["batch_tokens"] == tokens
        assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["batch_tokens"] == 0

    def test_it_is_no_more_than_the_training_set(self, config, has, tmp_path):
        has(1000 * GIB)
        config.train.batch_tokens = 0
        assert train(config, tmp_path / "run")["batch_tokens"] < 60 * 16

    def test_it_goes_by_fixed_shapes(self, config, has):
        lengths = np.array([5, 9, 9])
        config.train.batch_tokens, config.train.num_shapes = 0, 1
        memory = memory_of(config)
        has(int(memory.of_batch(1, 16) / batch_memory.SHARE) + 1)
        found = batch_memory.with_budget(config, lengths, BertArchitecture.from_folder(config.model.checkpoint))
        assert found.train.batch_tokens == 16  # 9 rounded up to a multiple of 8
        assert config.train.batch_tokens == 0

    def test_not_even_one_text_fits(self, config, has, tmp_path):
        has(GIB // 10)
        config.train.batch_tokens = 0
        expected = (
            r"not even a batch of one text fits in memory, in train.batch_tokens=0, expected 0\.\d GiB free for 16 "
            r"tokens, or train.gradient_checkpointing=true or a data.max_length below 16, got 0.1 GiB"
        )
        with pytest.raises(InputError, match=expected):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("kind", ["GPU", "CPU"])
    def test_several_devices_take_their_shares(self, config, has, monkeypatch, capsys, kind):
        """Each has its own memory, or all of them the machine's."""
        monkeypatch.setattr(devices, "replicas_at_work", lambda: 2)
        monkeypatch.setattr(devices, "kind", lambda: kind)
        memory = memory_of(config)
        free = int(memory.of_batch(3, 16) / batch_memory.SHARE) + 1
        monkeypatch.setattr(free_memory, "of_gpu", lambda: free)
        has(2 * free)
        config.train.batch_tokens = 0
        lengths, architecture = np.full(100, 16), BertArchitecture.from_folder(config.model.checkpoint)
        found = batch_memory.with_budget(config, lengths, architecture)
        assert "GiB free on each of 2 devices" in capsys.readouterr().out
        order = training_order(
            lengths, batch_size=1, batch_tokens=found.train.batch_tokens, seed=0, epoch=0, rows_multiple_of=2
        )
        assert order.rows.max() / 2 <= 3
        assert found.train.batch_tokens == 2 * (3 - 1) * 16  # one of them may have a text more than its half

    def test_it_needs_to_know_what_is_free(self, config, has, tmp_path):
        has(None)
        config.train.batch_tokens = 0
        expected = "free memory cannot be read, in train.batch_tokens=0, expected a number of tokens, such as train.bat"
        with pytest.raises(InputError, match=expected):
            train(config, tmp_path / "run")

    def test_so_it_does_on_a_gpu(self, config, has, monkeypatch):
        has(8 * GIB)
        monkeypatch.setattr(devices, "gpus", lambda: ["a GPU"])
        config.train.batch_tokens = 0
        architecture = BertArchitecture.from_folder(config.model.checkpoint)
        monkeypatch.setattr(free_memory, "of_gpu", lambda: None)
        with pytest.raises(InputError, match="this device does not say how much memory is free"):
            batch_memory.with_budget(config, np.array([5]), architecture)
        monkeypatch.setattr(free_memory, "of_gpu", lambda: 2 * GIB)
        assert batch_memory.with_budget(config, np.array([5]), architecture).train.batch_tokens == 5


class TestWarning:
    @pytest.fixture
    def architecture(self, config):
        return BertArchitecture.from_folder(config.model.checkpoint)

    @pytest.mark.parametrize(("texts", "is_warned"), [(8, True), (7, False)])
    def test_of_a_batch_that_needs_more_than_is_free(self, config, has, capsys, architecture, texts, is_warned):
        has(memory_of(config).of_batch(7, 16))
        config.train.batch_size = texts
        batch_memory.warn_of_too_large(config, np.full(20, 16), architecture)
        warned = re.search(r"^warning: a batch of 8 texts x 16 tokens needs about 0.\d GiB of memory, and 0.\d GiB is "
                           r"free; if the run ends without a word, that was why: try train.batch_size=4, "
                           r"train.accumulation_steps=2, "
                           r"train.gradient_checkpointing=true or a data.max_length below 16$",
                           capsys.readouterr().err, flags=re.MULTILINE)  # fmt: skip
        assert bool(warned) == is_warned

    @pytest.mark.parametrize(("free", "on_gpu"), [(None, False), (1, True)])
    def test_not_where_nobody_says_or_a_gpu_answers(self, config, has, capsys, architecture, monkeypatch, free, on_gpu):
        has(free)
        monkeypatch.setattr(devices, "gpus", lambda: ["a GPU"] * on_gpu)
        batch_memory.warn_of_too_large(config, np.full(20, 16), architecture)
        assert not capsys.readouterr().err

    @pytest.mark.parametrize(
        ("changes", "batch"),
        [
            ({}, (3, 9)),  # the whole training set
            ({"batch_size": 2}, (2, 9)),
            ({"batch_size": 1, "batch_tokens": 20}, (2, 9)),
            ({"batch_tokens": 4}, (1, 9)),  # a text longer than the budget is a batch of its own
            ({"num_shapes": 1}, (32, 16)),  # filled up with rows that stand for no example
        ],
    )
    def test_the_largest_batch(self, config, changes, batch):
        for name, value in changes.items():
            setattr(config.train, name, value)
        assert batch_memory._largest_batch(config, np.array([5, 9, 9])) == batch


class TestAnswer:
    @pytest.mark.parametrize(
        "error",
        [
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[8,16]"),
            tf.errors.InternalError(None, None, "Failed to allocate: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
            MemoryError(),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_every_way_to_say_it(self, error):
        with pytest.raises(RunError, match="^out of memory here$"), batch_memory.answered(lambda: "here"):
            raise error

    def test_in_training_after_a_warning(self, config, has, tmp_path, monkeypatch, capsys):
        def fit(model, *args, **kwargs):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

        has(1)
        monkeypatch.setattr(TFBertForSequenceClassification, "fit", fit)
        config.train.batch_size = 64
        expected = (
            "^out of memory in a batch of 49 texts x 16 tokens: try train.batch_size=24, "
            "train.accumulation_steps=2, train.gradient_checkpointing=true or a data.max_length below 16$"
        )
        with pytest.raises(RunError, match=expected):
            train(config, tmp_path / "run")
        assert "warning: a batch of 49 texts x 16 tokens needs about" in capsys.readouterr().err

    def test_it_names_the_batch_at_work(self, config, tmp_path, monkeypatch):
        sizes, plain = [], TFBertForSequenceClassification.train_step

        def train_step(model, data):
            def fail(inputs):
                sizes.append(inputs.shape)
                if len(sizes) == 3:
                    raise MemoryError
                return inputs

            inputs, *others = data
            ids = tf.ensure_shape(tf.numpy_function(fail, [inputs["input_ids"]], tf.int32), [None, None])
            return plain(model, (inputs | {"input_ids": ids}, *others))

        monkeypatch.setattr(TFBertForSequenceClassification, "train_step", train_step)
        config.train.batch_tokens = 64
        with pytest.raises(RunError, match="out of memory in a batch of (.*) texts x (.*) tokens") as raised:
            train(config, tmp_path / "run")
        assert f"{sizes[2][0]} texts x {sizes[2][1]} tokens" in str(raised.value)

    def test_in_validation(self, config, tmp_path, monkeypatch):
        def predict(model, *args, **kwargs):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

        monkeypatch.setattr(TFBertForSequenceClassification, "predict", predict)
        expected = "^out of memory in validation, 64 texts a batch: try train.eval_batch_size=32 or a smaller data.max"
        with pytest.raises(RunError, match=expected):
            train(config, tmp_path / "run")

    def test_another_error_is_no_lack_of_memory(self):
        with pytest.raises(tf.errors.InvalidArgumentError), batch_memory.answered(lambda: pytest.fail("asked")):
            raise tf.errors.InvalidArgumentError(None, None, "shapes differ")

    def test_what_an_error_came_from_counts(self):
        wrapped = ValueError("by Keras")
        wrapped.__cause__ = MemoryError()
        assert batch_memory.is_out_of_memory(wrapped)
        wrapped.__cause__ = wrapped
        assert not batch_memory.is_out_of_memory(wrapped)

    @pytest.mark.parametrize(
        ("changes", "texts", "advice"),
        [
            ({}, 1, "try train.gradient_checkpointing=true or a data.max_length below 512"),
            ({"batch_tokens": 3000}, 5, "try train.batch_tokens=1280, train.accumulation_steps=2, train.gradient_chec"),
            (
                {"gradient_checkpointing": True},
                32,
                "try train.batch_size=16, train.accumulation_steps=2 or a data.max_length below 512",
            ),
            ({"gradient_checkpointing": True}, 1, "try a data.max_length below 512"),
        ],
    )
    def test_only_what_would_help_is_advised(self, changes, texts, advice):
        config = ExperimentConfig()
        for name, value in changes.items():
            setattr(config.train, name, value)
        assert advice in batch_memory.in_training(config, texts, 512)

    @pytest.mark.parametrize(("texts", "pieces"), [(16, 2), (8, 0), (9, 2)])
    def test_more_pieces_than_a_device_has_rows_are_not_advised(self, monkeypatch, texts, pieces):
        monkeypatch.setattr(batch_memory.devices, "replicas_at_work", lambda: 8)
        advice = batch_memory.in_training(ExperimentConfig(), texts, 512)
        assert (f"train.accumulation_steps={pieces}" in advice) == ("accumulation" in advice) == bool(pieces)


@pytest.mark.parametrize("wanted", [True, False])
def test_gradient_checkpointing_reaches_the_model_from_the_command_line(config, tmp_path, monkeypatch, wanted):
    seen, plain = [], BertBackbone.call

    def call(backbone, *args, training=None, pooled_only=False, **kwargs):
        seen.append((bool(training), backbone.gradient_checkpointing))
        return plain(backbone, *args, training=training, pooled_only=pooled_only, **kwargs)

    monkeypatch.setattr(BertBackbone, "call", call)
    given = {"model.checkpoint": config.model.checkpoint, "data.max_length": 16, "train.epochs": 1}
    given |= {"runtime.precision": "float32", "train.gradient_checkpointing": str(wanted).lower()}
    flags = [f"--config.{name}={value}" for name, value in given.items()]
    places = [f"--config=my_data:{config.data.source}", f"--workdir={tmp_path / 'run'}"]
    assert cli.main(["tf-finetune", "train", *places, *flags]) == 0
    assert {checkpointing for training, checkpointing in seen if training} == {wanted}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["gradient_checkpointing"] is wanted


def test_gradient_checkpointing_is_reckoned_with(config):
    config.train.gradient_checkpointing = True
    architecture = BertArchitecture.from_folder(config.model.checkpoint)
    options = {"activation_bytes": 4, "compiled": batch_memory.compiled.operations() is not None}
    assert memory_of(config) == step_memory(architecture, gradient_checkpointing=True, **options)
    assert keras.config.dtype_policy().name == "float32"


def test_the_memory_of_other_machines_is_not_counted(config, has, monkeypatch):
    has(GIB)
    monkeypatch.setattr(devices, "replicas_at_work", lambda: 4)
    asked = config, np.full(100, 16), BertArchitecture.from_folder(config.model.checkpoint)
    alone = batch_memory.expected_memory(*asked)
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert 2 * batch_memory.expected_memory(*asked).needed == alone.needed
