"""A run that was interrupted, by whatever it was, ends as if nothing had happened."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import faults
import numpy as np
import pytest
import tensorflow as tf
from faults import in_a_process, killed_at
from films import STEPS, three_epochs, write_films
from outcomes import contents, outcome, records
from safetensors.numpy import load_file

from tf_finetune import settings
from tf_finetune.commands import restore, resume
from tf_finetune.commands.train import train
from tf_finetune.config import Backend, ClassWeights, ExperimentConfig, LoraTargets, ProblemType, Schedule
from tf_finetune.errors import Interrupted
from tf_finetune.training import checkpoints, kernels
from tf_finetune.training.checkpoints import TrainingState
from tf_finetune.training.optimizer import AdamWeightDecay
from tf_finetune.workdir import Workdir


@pytest.fixture
def config(table, tiny_checkpoint):
    return three_epochs(table, tiny_checkpoint)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_checkpoint):
    """The folder of a run of the config as it is."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(three_epochs(write_films(folder / "films.csv"), tiny_checkpoint), folder / "run")
    return folder / "run"


@pytest.fixture
def reference(uninterrupted):
    return outcome(uninterrupted)


def test_the_reference_is_worth_comparing_with(uninterrupted, reference):
    assert reference["checkpoint"] == f"step_{3 * STEPS:08d}"
    assert [record["step"] for record in reference["records"] if record["split"] == "train"] == [4, 6, 8, 12, 16, 18]
    assert [record["step"] for record in reference["records"] if record["split"] == "validation"] == [0, 6, 12, 18]
    arrays = load_file(uninterrupted / "checkpoints" / reference["checkpoint"] / "training_state.safetensors")
    assert sum(name.endswith("momentum") for name in arrays) > 30
    assert {"optimizer/adamw/iteration", "optimizer/adamw/skipped_steps", "seeds/0"} <= arrays.keys()
    assert sum(value.any() for value in arrays.values()) > 0.9 * len(arrays) - 2


# The plain one with graphs.
VARIANTS = {
    "plain": {},
    "recipe": {  # at a learning rate that rises until it spoils the model, so that it ends early
        "early_stopping_patience": 1, "checkpoint_every_steps": 2, "keep_checkpoints": 1,
        "optimizer.learning_rate": 0.02, "optimizer.warmup_steps": 3 * STEPS,
        "label_smoothing": 0.1, "accumulation_steps": 3, "best_metric": "loss",
        "model.freeze_embeddings": True, "model.reinit_layers": 1,
        "model.hidden_dropout": 0.2, "optimizer.layer_decay": 0.8, "optimizer.schedule": Schedule.COSINE,
    },
    "factors_and_averages": {
        "validate_every_steps": 4, "early_stopping_patience": 4,
        "model.lora_rank": 2, "model.lora_targets": LoraTargets.ALL_LINEAR, "optimizer.ema_momentum": 0.8,
    },
}  # fmt: skip


POINTS = [
    ("step", 1), ("validation", 1), ("saving", 1), ("pruning", 1), ("tracing", 1), ("step", 3), ("publishing", 1),
    ("json", 4), ("pruning", 1), ("step", STEPS),
]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_is_killed_again_and_again(config, tmp_path, monkeypatch, variant, request):
    if variant != "plain":
        request.getfixturevalue("eagerly")
    for name, value in VARIANTS[variant].items():
        section, _, field = name.rpartition(".")
        setattr(getattr(config, section or "train"), field, value)
    train(config, tmp_path / "reference")
    reference = outcome(tmp_path / "reference")
    assert (reference["records"][-1]["step"] < 3 * STEPS) == (variant == "recipe")
    # Where weights are swapped for their averages, in validation and while saving, all matter.
    points = POINTS if variant in ("plain", "factors_and_averages") else POINTS[::2]
    kills = [killed_at(config, tmp_path / "run", monkeypatch, *point) for point in points]
    assert sum(kills) >= 0.6 * len(points)
    train(config, tmp_path / "run")
    assert outcome(tmp_path / "run") == reference
    assert not [path for path in (tmp_path / "run").rglob(".*") if path.name != ".lock"]


@pytest.mark.parametrize(("point", "number"), [("step", 2), ("step", STEPS + 1), ("validation", 1), ("tracing", 1)])
def test_sigterm_saves_and_leaves(config, tmp_path, monkeypatch, reference, point, number):
    with monkeypatch.context() as patched:
        faults.at(point, number, faults.sigterm, set_attribute=patched.setattr)
        with pytest.raises(
            Interrupted, match=r"interrupted by SIGTERM at step \d+ of 18, kept in .*; the same command"
        ):
            train(config, tmp_path / "run")
    done = {("step", 2): 2, ("step", STEPS + 1): STEPS + 1, ("validation", 1): STEPS, ("tracing", 1): 1}[point, number]
    [last] = [path.name for path in checkpoints.all_of(tmp_path / "run" / "checkpoints")][-1:]
    assert last == checkpoints.name_of(done)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train(config, tmp_path / "run")
    assert outcome(tmp_path / "run") == reference


def jsonl(path, row):
    random = np.random.default_rng(0)
    rows = [
        {"text": " ".join(random.choice(["good", "bad", "film", "plot"], 3 + i % 9)), **row(i, random)}
        for i in range(120)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


ROWS = {
    "numbers": lambda i, random: {"label": round(float(random.normal()), 3)},
    "several_labels": lambda i, random: {"label": [name for name in ("one", "two", "three") if random.random() < 0.5]},
    "pairs": lambda i, random: {"label": f"{i % 2}", "other": "plot film", "weight": 1.0 + i % 3},
}
WAYS = {
    "numbers_in_few_shapes": {
        "rows": "numbers", "model.problem_type": ProblemType.REGRESSION,
        "train.num_shapes": 2, "train.gradient_checkpointing": True,
    },
    "several_labels_by_tokens": {"rows": "several_labels", "train.batch_tokens": 300},
    "pairs_with_weights": {
        "rows": "pairs", "data.text_pair_column": "other", "data.weight_column": "weight",
        "train.class_weights": ClassWeights.BALANCED,
    },
    "a_budget_that_is_found": {"train.batch_tokens": 0},
}  # fmt: skip


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_train_goes_on(config, tmp_path, monkeypatch, way):
    """In mid-epoch, and after its end."""
    changes = dict(WAYS[way])
    if rows := changes.pop("rows", None):
        config.data.source = jsonl(tmp_path / "rows.jsonl", ROWS[rows])
    for name, value in changes.items():
        section, field = name.split(".")
        setattr(getattr(config, section), field, value)
    config.train.epochs, config.train.checkpoint_every_steps = 2, 1 if config.train.batch_tokens == 0 else 2
    train(config, tmp_path / "reference")
    assert killed_at(config, tmp_path / "run", monkeypatch, "step", 2 if config.train.batch_tokens == 0 else 4)
    assert checkpoints.all_of(tmp_path / "run" / "checkpoints")
    killed_at(config, tmp_path / "run", monkeypatch, "step", 5)
    train(config, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "reference")


@pytest.mark.usefixtures("eagerly")
def test_skipped_steps_are_counted_on(config, tmp_path, monkeypatch):
    """The first two steps of the run, and one after it was killed."""
    real = kernels.global_norm

    def broken(gradients):
        step = training_step()
        return tf.where((step < 2) | (step == 4), np.inf, real(gradients))

    def training_step():
        return steps[-1].iterations.value

    steps = []
    build = AdamWeightDecay.build
    monkeypatch.setattr(AdamWeightDecay, "build", lambda self, variables: (steps.append(self), build(self, variables)))
    monkeypatch.setattr(kernels, "global_norm", broken)
    config.train.epochs, config.train.checkpoint_every_steps, config.train.log_every_steps = 1, 1, 1
    train(config, tmp_path / "reference")
    skipped = [record["skipped_steps"] for record in records(tmp_path / "reference") if record["split"] == "train"]
    assert skipped == [1, 2, 2, 2, 3, 3]
    for number in (2, 2, 1):
        assert killed_at(config, tmp_path / "run", monkeypatch, "step", number)
    train(config, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "reference")


@pytest.mark.usefixtures("eagerly")
def test_checkpoints_that_fall_on_validations(config, tmp_path):
    config.train.checkpoint_every_steps, config.train.validate_every_steps, config.train.keep_checkpoints = 2, 2, 20
    train(config, tmp_path / "run")
    found = [folder.name for folder in checkpoints.all_of(tmp_path / "run" / "checkpoints")]
    assert found == [checkpoints.name_of(step) for step in range(2, 3 * STEPS + 1, 2)]


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_a_kill_while_a_checkpoint_is_replaced(number, config, tmp_path, monkeypatch, reference):
    """After a signal in the first validation there is one checkpoint, and validated it is written again: the old one
    aside, the new one in its place, the old one removed."""
    with monkeypatch.context() as patched:
        faults.at("validation", 1, faults.sigterm, set_attribute=patched.setattr)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "run")
    run = tmp_path / "run"
    point = ("publishing", number) if number < 3 else ("removing", 2)  # the first is that of TensorBoard's files
    assert in_a_process(config, run, point[0], str(point[1]), "sigkill").returncode == -signal.SIGKILL
    assert list((run / "checkpoints").glob(".*")) or number == 1
    train(config, run)
    assert outcome(run) == reference
    assert not list((run / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    ("epoch", "since_best", "patience", "why", "more"),
    [
        (3, 1, 0, "after 3 epochs", "--config.train.epochs=4"),
        (2, 2, 1, "as it got no better", "--config.train.early_stopping_patience=3"),
        (
            3,
            1,
            1,
            "after 3 epochs and as it got no better",
            "--config.train.epochs=4 --config.train.early_stopping_patience=2",
        ),
    ],
)
def test_what_is_said_of_a_finished_run_would_make_it_go_on(epoch, since_best, patience, why, more):
    config, state = ExperimentConfig(), TrainingState(epoch=epoch, validations_since_best=since_best)
    config.train.epochs, config.train.early_stopping_patience = 3, patience
    assert resume.is_over(state, config)
    said = resume.end_in_words(state, config)
    assert said == f"{why}, and its data was not looked at again; {more} trains on"
    for name, value in re.findall(r"--config.train.(\w+)=(\d+)", more):
        setattr(config.train, name, int(value))
    assert not resume.is_over(state, config)


@pytest.mark.parametrize(
    ("typed", "kept", "is_kept"),
    [
        ("imdb", "hub:stanfordnlp/imdb@abc", True),
        ("imdb", "tfds:imdb_reviews/plain_text:1.0.0", True),
        ("hub:a/b", "hub:a/b@abc", True),
        ("hub:a/b", "hub:a/bc@abc", False),
        ("tfds:imdb_reviews", "tfds:imdb_reviews/plain_text:1.0.0", True),
        ("tfds:imdb", "tfds:imdb_reviews/plain_text:1.0.0", False),
        ("reviews", "reviews", True),
        ("{folder}/../{name}/films.csv", "{folder}/films.csv", True),
        ("{folder}", "{folder}/films.csv", False),
    ],
)
def test_the_same_words_mean_what_they_meant(typed, kept, is_kept, table, monkeypatch):
    """Without the hub, and whatever it has by now."""
    places = {"folder": table.parent, "name": table.parent.name}
    trained, config = ExperimentConfig(), ExperimentConfig()
    trained.data.source, config.data.source = kept.format(**places), typed.format(**places)
    monkeypatch.setattr(restore.sources, "pinned", lambda source: "pinned anew")
    expected = trained.data.source if is_kept else "pinned anew"
    assert restore.with_places_of(trained, config).data.source == expected


def test_the_backend_may_be_given_its_name(uninterrupted, tiny_checkpoint):
    config = three_epochs(uninterrupted.parent / "films.csv", tiny_checkpoint)
    config.runtime.backend = Backend.TENSORFLOW  # which it was by default
    assert resume.earlier_run(config, Workdir(uninterrupted)).config.runtime.backend is Backend.TENSORFLOW


def test_a_restart_that_is_interrupted_before_it_begins_leaves_the_earlier_run(uninterrupted, tmp_path, monkeypatch):
    from tf_finetune.commands import fit

    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    before, build = contents(run), fit.build_classifier
    monkeypatch.setattr(fit, "build_classifier", lambda *args: (faults.sigterm(), build(*args)))
    config = settings.load_json(run / "config.json")
    expected = "there is nothing to save; the earlier run is as it was, and the same command begins anew"
    with pytest.raises(Interrupted, match=expected):
        train(config, run, restart=True)
    assert contents(run) == before


def test_the_message_after_a_restart_does_not_start_over_again(config, tmp_path, monkeypatch, reference):
    train(config, tmp_path / "run")
    with monkeypatch.context() as patched:
        faults.at("step", 2, faults.sigterm, set_attribute=patched.setattr)
        with pytest.raises(Interrupted, match="the same command without --restart goes on"):
            train(config, tmp_path / "run", restart=True)
    train(config, tmp_path / "run")
    assert outcome(tmp_path / "run") == reference


def test_sigterm_before_the_first_step_leaves_nothing(config, tmp_path, monkeypatch):
    from tf_finetune.commands import fit

    build = fit.build_classifier

    def terminated(*args):
        faults.sigterm()
        return build(*args)

    monkeypatch.setattr(fit, "build_classifier", terminated)
    with pytest.raises(Interrupted, match="interrupted by SIGTERM outside of training"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class TestAsAProcess:
    """Signals that end a process, and what it says before."""

    def test_killed_while_it_saves_and_then_gone_on_with(self, config, tmp_path, reference):
        result = in_a_process(config, tmp_path / "run", "saving", "2", "sigkill")
        assert result.returncode == -signal.SIGKILL
        assert [path.name for path in checkpoints.all_of(tmp_path / "run" / "checkpoints")] == ["step_00000006"]
        assert list((tmp_path / "run" / "checkpoints").glob(".step_00000012-*"))
        result = in_a_process(config, tmp_path / "run", "step", "2", "sigterm")
        assert result.returncode == 75
        assert "going on at step 6, in epoch 2" in result.stdout
        assert "SIGTERM: stopping after this step, to save\n" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("interrupted by SIGTERM at step 8 of 18, kept in")
        train(config, tmp_path / "run")
        assert outcome(tmp_path / "run") == reference

    def test_a_second_control_c_leaves_at_once_and_harms_nothing(self, config, tmp_path, reference):
        result = in_a_process(config, tmp_path / "run", "step", str(STEPS + 2), "sigint_twice")
        assert result.returncode == 75
        said = "left at once, without saving; the same command goes on from the last checkpoint"
        assert result.stderr.splitlines()[-1] == said
        assert [path.name for path in checkpoints.all_of(tmp_path / "run" / "checkpoints")] == ["step_00000006"]
        train(config, tmp_path / "run")
        assert outcome(tmp_path / "run") == reference

    def test_deterministic_operations_go_on(self, config, tmp_path):
        """In processes of their own, as TensorFlow has no way back from them."""
        config.runtime.deterministic = True
        assert in_a_process(config, tmp_path / "reference", "step", "999", "sigkill").returncode == 0
        assert in_a_process(config, tmp_path / "run", "step", str(STEPS + 2), "sigterm").returncode == 75
        assert in_a_process(config, tmp_path / "run", "step", "999", "sigkill").returncode == 0
        assert outcome(tmp_path / "run") == outcome(tmp_path / "reference")

    @pytest.mark.slow
    def test_deterministic_operations_by_the_environment(self, config, tmp_path, monkeypatch, capsys):
        """TensorFlow's own switch for them, which the config says nothing of."""
        monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
        result = in_a_process(config, tmp_path / "run", "step", str(STEPS + 2), "sigterm")
        assert result.returncode == 75, result.stderr
        monkeypatch.delenv("TF_DETERMINISTIC_OPS")
        train(config, tmp_path / "run")
        assert "deterministic was True and is False: the last bits" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_random_moments():
    """A few kills here; the script's own default is twenty, on the packaged reviews."""
    script = Path(faults.__file__).with_name("kill_at_random.py")
    flags = ["--config=smoke", "--config.train.epochs=3", "--config.train.checkpoint_every_steps=3"]
    result = subprocess.run([sys.executable, str(script), "--kills=3", *flags], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 kills; the same bits at the end" in result.stdout
    assert re.search(r"kill .* step_\d+", result.stdout), result.stdout
