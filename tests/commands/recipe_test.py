"""Each part of the recipe does to the weights what it says, on a tiny random model of two blocks."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from tf_finetune import InputError
from tf_finetune.commands.train import train
from tf_finetune.config import LoraTargets, Schedule
from tf_finetune.settings import load_json
from tf_finetune.workdir import Workdir

pytestmark = pytest.mark.usefixtures("eagerly_throughout")


def trained(config, workdir):
    """The weights before and after, by name, and the records."""
    train(config, workdir)
    run = Workdir(workdir)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return load_file(run.best_checkpoint() / "model.safetensors"), records


@pytest.fixture
def before(tiny_checkpoint):
    return {f"bert.{name}": value for name, value in load_file(tiny_checkpoint / "model.safetensors").items()}


@pytest.fixture
def short(config):
    config.train.epochs, config.train.batch_size, config.train.log_every_steps = 1, 16, 1
    return config


def moved(before, after):
    """The parts whose weights are others now."""
    parts = {name: re.search(r"layer\.\d|embeddings|pooler", name)[0] for name in before}
    return {part for name, part in parts.items() if not np.array_equal(before[name], after[name])}


def test_frozen_parts_stay_bit_for_bit(short, tmp_path, before):
    short.model.freeze_embeddings, short.model.freeze_layers = True, 1
    after, _ = trained(short, tmp_path / "run")
    assert moved(before, after) == {"layer.1", "pooler"}


def test_without_it_everything_moves(short, tmp_path, before):
    after, _ = trained(short, tmp_path / "run")
    assert moved(before, after) == {"layer.0", "layer.1", "embeddings", "pooler"}


def test_the_last_blocks_start_anew(short, tmp_path, before, tiny_checkpoint):
    spread = json.loads((tiny_checkpoint / "config.json").read_text())["initializer_range"]
    short.model.reinit_layers, short.optimizer.learning_rate = 1, 1e-12
    after, _ = trained(short, tmp_path / "run")
    far = {name for name in before if np.abs(before[name] - after[name]).max() > 1e-6}
    assert far
    assert all(re.search(r"layer\.1|pooler", name) for name in far)
    for name in (name for name in before if re.search(r"layer\.1|pooler", name)):
        if "LayerNorm.weight" in name:
            np.testing.assert_allclose(after[name], 1, atol=1e-6)
        elif name.endswith("bias"):
            np.testing.assert_allclose(after[name], 0, atol=1e-6)
        else:
            assert after[name].std() == pytest.approx(spread, rel=0.2), name


def test_lower_blocks_move_less(short, tmp_path, before):
    short.optimizer.layer_decay, short.optimizer.weight_decay = 0.1, 0.0
    short.train.epochs = 1
    after, records = trained(short, tmp_path / "run")

    def step(name):
        return np.abs(after[name] - before[name]).mean()

    query = "bert.encoder.layer.{}.attention.self.query.weight"
    ratio = step(query.format(0)) / step(query.format(1))
    assert 0.05 < ratio < 0.2  # Adam's steps are of the size of the learning rate, whatever the gradient


@pytest.mark.parametrize("schedule", list(Schedule))
def test_the_schedule_is_the_one_asked_for(short, tmp_path, schedule):
    short.optimizer.schedule = schedule
    _, records = trained(short, tmp_path / "run")
    rates = [record["learning_rate"] / 1e-3 for record in records if record["split"] == "train"]
    left = 1 - np.arange(6) / 6  # no step of warmup
    expected = {"linear": left, "cosine": 0.5 - 0.5 * np.cos(np.pi * left), "constant": np.ones(6)}[schedule.value]
    np.testing.assert_allclose(rates, expected, rtol=1e-4, atol=1e-6)


def test_dropouts_are_the_models(short, tmp_path):
    short.model.hidden_dropout, short.model.attention_dropout, short.model.classifier_dropout = 0.3, 0.0, 0.25
    trained(short, tmp_path / "run")
    kept = json.loads((Workdir(tmp_path / "run").best_checkpoint() / "config.json").read_text())
    assert kept["hidden_dropout_prob"] == 0.3
    assert kept["attention_probs_dropout_prob"] == 0.0
    assert kept["classifier_dropout"] == 0.25


def test_smoothed_labels_have_another_loss_and_other_weights(short, tmp_path):
    plain, records = trained(short, tmp_path / "plain")
    short.train.label_smoothing = 0.3
    smoothed, others = trained(short, tmp_path / "smoothed")
    first, other = (next(r["loss"] for r in one if r["split"] == "train") for one in (records, others))
    assert first != other
    assert any(not np.array_equal(plain[name], smoothed[name]) for name in plain)


def test_smoothing_of_numbers_is_refused(short, tmp_path):
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(json.dumps({"text": f"film {i}", "label": i / 7}) + "\n" for i in range(100)))
    short.data.source, short.train.label_smoothing = str(path), 0.1
    short.model.problem_type = type(short.model.problem_type).REGRESSION
    with pytest.raises(InputError, match=r"no label smoothing here, in train.label_smoothing, expected 0"):
        train(short, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["freeze_layers", "reinit_layers"])
def test_more_blocks_than_there_are(short, tmp_path, field):
    setattr(short.model, field, 3)
    with pytest.raises(
        InputError, match=rf"the model has fewer blocks, in model.{field}, .* expected at most 2, .* got 3"
    ):
        train(short, tmp_path / "run")


def test_frozen_blocks_are_not_to_be_fresh_ones(short, tmp_path):
    short.model.freeze_layers, short.model.reinit_layers = 1, 2
    said = "fresh blocks would stay random, in model.reinit_layers, expected at most 1, the blocks not frozen, got 2"
    with pytest.raises(InputError, match=said):
        train(short, tmp_path / "run")


def test_the_best_is_the_best_by_the_metric_asked_for(short, tmp_path):
    short.train.epochs, short.train.best_metric = 3, "loss"
    _, records = trained(short, tmp_path / "run")
    losses = {
        record["step"]: record["loss"] for record in records if record["split"] == "validation" and record["step"]
    }
    best = json.loads(Workdir(tmp_path / "run").best.read_text())
    assert best["step"] == min(losses, key=losses.get)
    assert load_json(Workdir(tmp_path / "run").config).train.best_metric == "loss"


def test_a_metric_that_there_is_not(short, tmp_path):
    short.train.best_metric = "pearson"
    with pytest.raises(
        InputError, match=r"no such metric in validation, in train.best_metric, expected accuracy or .* got"
    ):
        train(short, tmp_path / "run")


def state_of(workdir):
    """Arrays of the last checkpoint's training state, by name."""
    return load_file(checkpoints_of(workdir)[-1] / "training_state.safetensors")


def checkpoints_of(workdir):
    return sorted(path for path in Workdir(workdir).checkpoints.iterdir() if path.name.startswith("step_"))


@pytest.mark.parametrize("targets", list(LoraTargets))
def test_lora_changes_kernels_by_products_of_low_rank(short, tmp_path, before, targets):
    short.model.lora_rank, short.model.lora_alpha, short.model.lora_targets = 2, 3.0, targets
    short.optimizer.learning_rate = 1e-2
    after, _ = trained(short, tmp_path / "run")
    names = {name for name in before if "encoder" in name and not np.array_equal(before[name], after[name])}
    kernels = r"attention\.self\.(query|key|value)"
    if targets is LoraTargets.ALL_LINEAR:
        kernels += r"|attention\.output\.dense|(intermediate|output)\.dense"
    assert names == {name for name in before if re.search(rf"layer\.\d\.({kernels})\.weight$", name)}
    for name in names:
        change = (after[name] - before[name]).astype(np.float64)
        strength = np.linalg.svd(change, compute_uv=False)
        assert strength[1] > 1e-5
        assert strength[2] < 1e-6, name
    assert moved(before, after) == {"layer.0", "layer.1", "pooler"}


def test_lora_trains_factors_alone(short, tmp_path):
    short.model.lora_rank = 2
    trained(short, tmp_path / "run")
    arrays = state_of(tmp_path / "run")
    slots = [name for name in arrays if name.endswith("momentum")]
    assert len(slots) == 2 * 2 + 2 + 2  # two factors a block, pooler, classifier


def test_frozen_blocks_train_no_factors_either(short, tmp_path, before):
    short.model.lora_rank, short.model.freeze_layers = 2, 1
    after, _ = trained(short, tmp_path / "run")
    assert moved(before, after) == {"layer.1", "pooler"}


def test_what_is_kept_are_the_averages(short, tmp_path):
    momentum = 0.8
    short.optimizer.ema_momentum = momentum
    short.train.checkpoint_every_steps, short.train.keep_checkpoints = 1, 10
    after, _ = trained(short, tmp_path / "averaged")
    steps = [load_file(path / "training_state.safetensors") for path in checkpoints_of(tmp_path / "averaged")]
    assert len(steps) == 6
    expected, *later = [
        value for arrays in steps for name, value in arrays.items() if re.match("weights/.*pooler/bias", name)
    ]
    assert len(later) == 5
    for value in later:
        expected = momentum * expected + (1 - momentum) * value
    np.testing.assert_allclose(after["bert.pooler.dense.bias"], expected, rtol=1e-5, atol=1e-9)
    short.optimizer.ema_momentum = 0.0
    plain, _ = trained(short, tmp_path / "plain")  # training itself is the same
    np.testing.assert_array_equal(value, plain["bert.pooler.dense.bias"])


def test_validation_asks_the_averages(short, tmp_path):
    short.optimizer.ema_momentum, short.optimizer.learning_rate = 0.999999, 1e-2
    _, records = trained(short, tmp_path / "run")
    first = [r for r in records if r["split"] == "validation"]
    short.optimizer.ema_momentum = 0.0
    _, records = trained(short, tmp_path / "plain")
    other = [r for r in records if r["split"] == "validation"]
    assert first[0]["loss"] == other[0]["loss"]
    assert first[-1]["loss"] != other[-1]["loss"]
