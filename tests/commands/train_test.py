"""What a run keeps, refuses and survives, on a tiny random model."""

import json
import re
import shlex
import shutil
import sys
import tempfile
from types import SimpleNamespace

import films
import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_finetune import (
    InputError,
    TFBertForSequenceClassification,
    devices,
    evaluate,
    export,
    predict,
    processes,
    settings,
    verify,
)
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.commands import fit as fit_module
from tf_finetune.commands import training_loop
from tf_finetune.commands.dry_run import dry_run
from tf_finetune.commands.find_learning_rate import find_learning_rate
from tf_finetune.commands.train import train
from tf_finetune.config import ExperimentConfig, Precision, Truncation
from tf_finetune.data import sources
from tf_finetune.data.sources import Splits
from tf_finetune.errors import RunError


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_checkpoint):
    """A finished run of `config`, to be read."""
    folder = tmp_path_factory.mktemp("trained")
    train(films.one_epoch(films.write_films(folder / "films.csv"), tiny_checkpoint), folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, to be changed, and the config it was made with."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run", settings.load_json(trained / "config.json")


def weights_of(workdir):
    folder = json.loads((workdir / "best.json").read_text())["checkpoint"]
    return load_file(workdir / "checkpoints" / folder / "model.safetensors")


def test_the_best_checkpoint_is_kept_and_training_stops_early(config, tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.6, 0.8, 0.7, 0.8, 0.9])  # before training, then by epoch; the last is never reached
    seen = []

    def scripted(classifier, examples, **options):
        seen.append(classifier.model.classifier.kernel.numpy())
        return {"accuracy": next(accuracies), "loss": 1.0}

    monkeypatch.setattr(fit_module, "validate", scripted)
    monkeypatch.setattr(training_loop, "validate", scripted)
    config.train.epochs, config.train.early_stopping_patience = 5, 2
    best = train(config, tmp_path / "run")
    assert (best["epoch"], best["validation"]["accuracy"]) == (1, 0.8)
    assert len(seen) == 5
    np.testing.assert_array_equal(weights_of(tmp_path / "run")["classifier.weight"].T, seen[2])
    assert json.loads((tmp_path / "run" / "best.json").read_text()) == best


def test_among_equal_accuracies_the_lower_loss_wins(config, tmp_path, monkeypatch):
    results = iter([(0.5, 1.0), (0.8, 0.5), (0.8, 0.4), (0.8, 0.6)])

    def scripted(classifier, examples, **options):
        return dict(zip(("accuracy", "loss"), next(results), strict=True))

    monkeypatch.setattr(fit_module, "validate", scripted)
    monkeypatch.setattr(training_loop, "validate", scripted)
    config.train.epochs = 3
    assert train(config, tmp_path / "run")["epoch"] == 1


def test_the_same_seed_gives_the_same_weights(config, tmp_path):
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    train(config, first)
    train(config, second)
    config.runtime.seed = 7
    train(config, other)
    for name, value in weights_of(first).items():
        np.testing.assert_array_equal(value, weights_of(second)[name], err_msg=name)
    assert not np.array_equal(weights_of(first)["classifier.weight"], weights_of(other)["classifier.weight"])


def test_training_in_bfloat16_moves_every_weight_and_keeps_float32(config, tmp_path, tiny_checkpoint):
    config.runtime.precision = Precision.BFLOAT16
    train(config, tmp_path / "run")
    before = load_file(tiny_checkpoint / "model.safetensors")
    after = weights_of(tmp_path / "run")
    assert {value.dtype for value in after.values()} == {np.dtype("float32")}
    unmoved = [name for name, value in before.items() if np.array_equal(value, after[f"bert.{name}"])]
    assert not unmoved
    assert keras.config.dtype_policy().name == "float32"


def test_what_the_steps_cost_is_printed_and_kept(config, tmp_path, capsys):
    config.train.epochs, config.train.batch_size, config.train.log_every_steps = 2, 16, 3
    train(config, tmp_path / "run")
    cost = r"tokens/s  [\d.]+% padding  \d+% of the matrix rate  [\d.]+% waiting for input  (\d+ min )?\d+ s left$"
    lines = re.findall(rf"^epoch \d  step .* examples/s\n  \d+ {cost}", capsys.readouterr().out, flags=re.MULTILINE)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    records = [record for record in records if record["split"] == "train"]
    assert len(lines) == len(records) >= 4
    for record in records:
        assert 0 <= record["padding_share"] < 0.6
        timing = record["timing"]
        # A text has 4 to 32 tokens.
        assert 4 < timing["tokens_per_second"] / timing["examples_per_second"] <= 32
        assert timing["matrix_rate"] > 0
        assert 0 < timing["matrix_rate_share"] < 2
        assert 0 <= timing["input_wait_share"] <= 1
    assert records[0]["timing"]["seconds_left"] > records[-1]["timing"]["seconds_left"]


@pytest.mark.parametrize(("gpus", "num_shapes", "with_xla"), [([], 2, False), (["one"], 0, False), (["one"], 2, True)])
def test_xla_where_a_gpu_trains_on_few_shapes(config, tmp_path, monkeypatch, gpus, num_shapes, with_xla):
    class ChosenError(Exception):
        pass

    def compile_of(model, *args, jit_compile, **kwargs):
        raise ChosenError(jit_compile)

    monkeypatch.setattr(devices, "gpus", lambda: gpus)
    monkeypatch.setattr(devices, "device_name", lambda gpu: gpu)
    monkeypatch.setattr(TFBertForSequenceClassification, "compile", compile_of)
    config.train.num_shapes = num_shapes
    with pytest.raises(ChosenError, match=str(with_xla)):
        train(config, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run(config, tmp_path):
    config.optimizer.learning_rate = 1e30
    config.optimizer.max_grad_norm = 0.0
    config.optimizer.warmup_proportion = 0.0
    config.train.batch_size, config.train.max_skipped_steps = 16, 2
    expected = (
        r"not finite in 3 steps in a row, the last of them step \d, train.max_skipped_steps=2 may be skipped; none was "
        "kept before it; a lower learning rate may help, which is another run: --restart to start over"
    )
    with pytest.raises(RunError, match=expected):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "best.json").exists()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("truncation", [pytest.param(Truncation.TAIL, marks=pytest.mark.slow), Truncation.HEAD_TAIL])
def test_other_truncations_train_export_and_verify(config, tmp_path, truncation):
    config.data.truncation = truncation
    config.data.max_length = 12
    config.export.verify = False  # it is below
    train(config, tmp_path / "run")
    export(tmp_path / "run")
    assert all(check.kept is not False for check in verify(tmp_path / "run"))
    long_text = "good " + "the film was so " * 10 + "dull"
    same = {
        Truncation.TAIL: "so the film was so the film was so dull",
        Truncation.HEAD_TAIL: "good the film was so the film was so dull",
    }[truncation]
    answer, expected = predict(tmp_path / "run", [long_text, same])
    assert answer["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_answers_come_in_the_order_of_the_texts(trained):
    texts = [
        "good",
        "the film was so very dull and the plot was bad",
        "it is great",
        "",
        "a great cast and a good plot",
    ]
    together = [answer["score"] for answer in predict(trained, texts)]
    alone = [next(predict(trained, [text]))["score"] for text in texts]
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_tokenizer_larger_than_the_model_keeps_the_earlier_run(run, tmp_path, tiny_checkpoint):
    workdir, config = run
    before = weights_of(workdir)
    shutil.copytree(tiny_checkpoint, tmp_path / "larger")
    with (tmp_path / "larger" / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("another\n")
    config.model.checkpoint = str(tmp_path / "larger")
    with pytest.raises(
        InputError, match="the tokenizer has more tokens than the model, .* expected at most 24, got 25"
    ):
        train(config, workdir, restart=True)
    np.testing.assert_array_equal(weights_of(workdir)["classifier.weight"], before["classifier.weight"])


def test_a_head_for_the_same_labels_is_kept_and_for_others_is_new(config, trained, caplog):
    [checkpoint] = (trained / "checkpoints").iterdir()
    config.model.checkpoint = str(checkpoint)
    head = TFBertForSequenceClassification.from_pretrained(checkpoint).classifier.kernel.numpy()
    built = fit_module.build_classifier(config, Splits({}, ("neg", "pos")), checkpoint)
    np.testing.assert_array_equal(built.model.classifier.kernel.numpy(), head)
    for labels in (("pos", "neg"), ("neg", "neutral", "pos")):
        caplog.clear()
        built = fit_module.build_classifier(config, Splits({}, labels), checkpoint)
        assert "the stored classifier is not used" in caplog.text
        assert built.label_names == labels
        assert not np.array_equal(built.model.classifier.kernel.numpy()[:, :2], head)


def test_the_data_is_found_from_another_folder_and_the_workdir_may_hold_a_colon(config, tmp_path, monkeypatch, table):
    monkeypatch.chdir(tmp_path)
    config.data.source = table.name
    train(config, "2026-11-23T10:00")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert set(evaluate("../2026-11-23T10:00")) == {"validation", "test"}


def test_the_config_a_run_was_made_with_is_no_change_of_it(config, tmp_path, monkeypatch, tiny_checkpoint):
    """A run keeps absolute paths; the config it came from may have relative ones."""
    monkeypatch.chdir(tiny_checkpoint.parent)
    config.model.checkpoint = tiny_checkpoint.name
    train(config, tmp_path / "run")
    assert set(evaluate(tmp_path / "run", config)) == {"validation", "test"}


def test_a_dry_run_on_fewer_examples_than_a_step_has(config, tmp_path, capsys):
    config.data.max_examples = 4
    dry_run(config, tmp_path / "run")
    assert "dry run passed" in capsys.readouterr().out


def test_an_export_of_an_earlier_run_is_not_verified_against_this_one(run):
    workdir, config = run
    config.export.verify = False
    export(workdir, config)
    config.runtime.seed = 7
    train(config, workdir, restart=True)
    with pytest.raises(InputError, match="the newest export was made from another checkpoint"):
        verify(workdir)


def test_an_export_that_would_tokenize_otherwise_is_not_published(run, monkeypatch):
    from tf_finetune.text.tokenizer import Tokenizer

    workdir, _ = run
    options = Tokenizer.in_graph_options

    def swapped(tokenizer):
        vocabulary = options(tokenizer)["vocabulary"]
        return options(tokenizer) | {"vocabulary": [*vocabulary[:5], vocabulary[6], vocabulary[5], *vocabulary[7:]]}

    monkeypatch.setattr(Tokenizer, "in_graph_options", swapped)
    with pytest.raises(RunError, match="the export would tokenize 'The movie was"):
        export(workdir)
    assert not any((workdir / "export").iterdir())


def test_an_export_that_was_never_asked_for_needs_no_tensorflow_text(config, tmp_path, monkeypatch, capsys):
    """On a platform that tensorflow-text has no package for, everything but the export works."""
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    train(config, tmp_path / "run")
    evaluate(tmp_path / "run")
    assert next(predict(tmp_path / "run", ["good"]))["label"] in ("neg", "pos")
    for command in (export, verify):
        expected = f"{command.__name__} needs tensorflow-text, which is not installed, in .*, expected Linux or macOS"
        with pytest.raises(InputError, match=expected):
            command(tmp_path / "run")
    dry_run(config, tmp_path / "other")
    assert "no export was tried: tensorflow-text is not installed" in capsys.readouterr().err


def test_the_end_of_a_run_says_where_everything_is(config, tmp_path, capsys):
    best = train(config, tmp_path / "a run")
    printed = capsys.readouterr().out
    for path in ("metrics.jsonl", "tensorboard", f"checkpoints/{best['checkpoint']}"):
        assert str(tmp_path / "a run" / path) in printed
        assert (tmp_path / "a run" / path).exists()
    for command in ("evaluate", "predict", "export"):
        assert f"  tf-finetune {command} --workdir='{tmp_path}/a run'" in printed


def test_a_warmup_longer_than_the_training_is_warned_of(config, tmp_path, capsys):
    config.optimizer.warmup_steps = 500
    train(config, tmp_path / "run")
    [warning] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: the warmup")]
    steps = json.loads((tmp_path / "run" / "best.json").read_text())["step"]
    assert f"the warmup of 500 steps is longer than the training of {steps}" in warning
    assert f"rises, to {1e-3 * (steps - 1) / 500:.1e} and never to 1.0e-03" in warning
    assert "--config.optimizer.warmup_steps=0 warms up for 0 steps instead, a share of 0.1" in warning


def test_a_model_with_many_more_rows_than_tokens_is_warned_of(config, tmp_path, tiny_checkpoint, capsys):
    """Such as cased weights beside an uncased vocabulary; a few rows more are padding."""
    for surplus, warned in ((100, False), (300, True)):
        folder = tmp_path / f"larger_{surplus}"
        shutil.copytree(tiny_checkpoint, folder)
        rows = load_file(folder / "model.safetensors")
        words = rows["embeddings.word_embeddings.weight"]
        rows["embeddings.word_embeddings.weight"] = np.concatenate([words, np.zeros((surplus, 16), np.float32)])
        save_file(rows, folder / "model.safetensors")
        description = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(description | {"vocab_size": len(words) + surplus}))
        capsys.readouterr()
        fit_module.build_classifier(config, Splits({}, ("neg", "pos")), folder)
        said = f"the tokenizer has {len(words)} tokens and the model {len(words) + surplus}: are both of the same"
        assert (said in capsys.readouterr().err) == warned


def test_a_dry_run_walks_the_whole_road_and_keeps_nothing(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    config.train.epochs, config.train.batch_size = 3, 8
    dry_run(config, tmp_path / "run")
    printed = capsys.readouterr().out
    train_examples = len(sources.load(config.data.source).examples["train"])
    assert f"step 2/{3 * -(-train_examples // 8)}" in printed  # the schedule is that of the run
    for word in ("8 train, 4 validation, 4 test", "confusion matrix", "  kept    labels are the", "exported to"):
        assert word in printed
    steps = 3 * -(-train_examples // 8)
    assert re.search(rf"the run itself: {steps} steps; at the [\d.]+ examples/s of one small step", printed)
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "temporary").glob("tf_finetune*"))  # autograph keeps files of its own until the end


def test_a_dry_run_refuses_what_the_run_would(run, tmp_path):
    workdir, config = run
    config.train.batch_size = 8
    with pytest.raises(InputError, match="holds a run of another config: train.batch_size is 32 there and 8 here"):
        dry_run(config, workdir)
    config.data.max_length = 65
    with pytest.raises(InputError, match="longer than the checkpoint's positions"):
        dry_run(config, tmp_path / "other")


def test_random_tiny_trains_and_says_that_it_is_random(config, tmp_path, capsys):
    config.model.checkpoint = "random-tiny"
    config.export.verify = False
    train(config, tmp_path / "run")
    assert "warning: the model is random and tiny" in capsys.readouterr().err
    export(tmp_path / "run")


def test_one_infinite_gradient_is_skipped_and_counted(config, tmp_path, monkeypatch, capsys):
    import tensorflow as tf

    from tf_finetune.training.optimizer import AdamWeightDecay

    apply = AdamWeightDecay.apply

    def infinite_at_step_3(optimizer, gradients, variables=None):
        *others, last = gradients
        last += tf.where(tf.equal(optimizer.iterations.value, 2), np.inf, 0.0)
        return apply(optimizer, [*others, last], variables)

    monkeypatch.setattr(AdamWeightDecay, "apply", infinite_at_step_3)
    config.train.batch_size, config.train.log_every_steps = 16, 2
    train(config, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["skipped_steps"] for record in records if record["split"] == "train"] == [0, 1, 1]
    assert "  steps skipped so far, their loss or gradient not finite: 1" in capsys.readouterr().out
    assert all(np.isfinite(value).all() for value in weights_of(tmp_path / "run").values())


def test_validation_in_mid_epoch_and_its_best(config, tmp_path, monkeypatch):
    """Six steps an epoch, validated after every fourth step and at the ends of epochs."""
    results = iter([0.5, 0.6, 0.7, 0.9, 0.8, 0.85])  # before training; steps 4, 6, 8, 12, 12 is the end
    steps = []

    def scripted(classifier, examples, **options):
        steps.append(int(classifier.model.optimizer.iterations))
        return {"accuracy": next(results), "loss": 1.0}

    monkeypatch.setattr(fit_module, "validate", scripted)
    monkeypatch.setattr(training_loop, "validate", scripted)
    config.train.epochs, config.train.batch_size, config.train.validate_every_steps = 2, 16, 4
    best = train(config, tmp_path / "run")
    assert steps == [0, 4, 6, 8, 12]
    assert (best["epoch"], best["step"], best["checkpoint"]) == (1, 8, "step_00000008")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step_00000008", "step_00000012"]


def test_deterministic_operations_are_asked_for_everywhere(config, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "use_deterministic_operations", lambda: asked.append("asked"))
    config.runtime.deterministic, config.export.verify = True, False
    train(config, tmp_path / "run")
    assert len(asked) == 1
    next(predict(tmp_path / "run", ["good"]))
    evaluate(tmp_path / "run")
    export(tmp_path / "run")
    assert len(asked) >= 4


def test_what_usually_is_a_mistake_is_warned_of(config, table, tmp_path, capsys):
    first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([first, *(f"the {row}" for row in rows)]) + "\n")  # what is not cut is the same in all
    config.optimizer.learning_rate, config.data.max_length = 1e-9, 3
    train(config, tmp_path / "run")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert any("optimizer.learning_rate=1e-09 is outside of 1e-06 to 0.0005" in line for line in warnings)
    assert any("of the training texts fill data.max_length=3: what is longer is cut" in line for line in warnings)
    assert any(re.search(r"training loss of epoch 1, 0\.\d+, is not below chance, 0\.6", line) for line in warnings)
    assert any("every validation text is answered" in line for line in warnings)


def test_the_manifest_says_how_the_weights_came_about(trained, tiny_checkpoint):
    best = json.loads((trained / "best.json").read_text())
    manifest = json.loads((trained / "checkpoints" / best["checkpoint"] / "manifest.json").read_text())
    assert manifest["base"] == str(tiny_checkpoint)
    assert manifest["seed"] == 42
    assert re.fullmatch("[0-9a-f]{64}", manifest["config_sha256"])
    assert manifest["data"].keys() == {"labels", "train", "validation"}
    assert manifest["data"]["train"]["examples"] > 80
    assert manifest["surroundings"]["keras"] == keras.__version__
    assert {"python", "tensorflow", "tf_finetune", "cores", "processor", "operations"} <= manifest[
        "surroundings"
    ].keys()
    assert manifest["command"] == shlex.join(sys.argv)


def test_evaluate_warns_of_data_that_has_changed(config, tmp_path, table, capsys):
    train(config, tmp_path / "run")
    evaluate(tmp_path / "run")
    changed = "warning: the data has changed since the run was trained"
    assert changed not in capsys.readouterr().err
    with table.open("a", encoding="utf-8") as file:
        file.writelines(f"another film {i},{'pos' if i % 2 else 'neg'}\n" for i in range(40))
    evaluate(tmp_path / "run")
    assert changed in capsys.readouterr().err


@pytest.mark.parametrize("command", [train, dry_run, find_learning_rate])
def test_a_backend_that_is_a_string(config, tmp_path, command):
    config.runtime.backend = "jax"
    with pytest.raises(InputError, match="wrong value for runtime.backend, expected Backend, got 'jax'"):
        command(config, tmp_path / "run")


@pytest.mark.parametrize(("kind", "rate"), [("CPU", 200.0), ("GPU", 400.0)])
def test_processes_add_up_their_processors(monkeypatch, kind, rate):
    """Four devices of two processes: those of a CPU share its cores."""
    monkeypatch.setattr(fit_module.matrix_rate, "measured", lambda *args, **options: 100.0)
    monkeypatch.setattr(processes, "count", lambda: 2)
    classifier = SimpleNamespace(model=SimpleNamespace(architecture=BertArchitecture()))
    trained_on = SimpleNamespace(policy="float32", kind=kind, replicas=4)
    assert fit_module._cost_meter(classifier, trained_on, ExperimentConfig(), seconds_between=0).matrix_rate == rate


@pytest.mark.parametrize(("backend", "kind", "waits"), [("jax", "GPU", False), ("jax", "CPU", True)])
def test_waiting_is_not_measured_where_jax_is_ahead_of_the_device(monkeypatch, backend, kind, waits):
    monkeypatch.setattr(devices, "keras_backend", lambda: backend)
    monkeypatch.setattr(devices, "kind", lambda: kind)
    monkeypatch.setattr(devices, "is_deterministic", lambda: False)
    assert training_loop._waits_for_batches() is waits
