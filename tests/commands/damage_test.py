"""What a run does about damaged files, another run in its folder, and a disk that is full."""

import contextlib
import copy
import json
import os
import shutil
import subprocess
from pathlib import Path

import faults
import pytest
from faults import killed_at
from films import STEPS, three_epochs, write_films
from outcomes import contents, outcome

from tf_finetune import InputError, evaluate, predict, settings
from tf_finetune.commands.train import train
from tf_finetune.errors import RunError
from tf_finetune.training import checkpoints
from tf_finetune.workdir import Workdir

pytestmark = pytest.mark.usefixtures("eagerly_throughout")


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_checkpoint):
    """A config and two runs of it: `reference`, and `halfway`, which was killed in its third epoch."""
    folder = tmp_path_factory.mktemp("made")
    config = three_epochs(write_films(folder / "films.csv"), tiny_checkpoint)
    train(config, folder / "reference")
    assert killed_at(config, folder / "halfway", pytest.MonkeyPatch(), "step", 2 * STEPS + 3)
    return config, folder


@pytest.fixture
def config(made):
    return copy.deepcopy(made[0])


@pytest.fixture
def table(config):
    """Its text, to be changed."""
    path = Path(config.data.source)
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


@pytest.fixture
def reference(made):
    return outcome(made[1] / "reference")


@pytest.fixture
def halfway(made, tmp_path):
    return Path(shutil.copytree(made[1] / "halfway", tmp_path / "run"))


class TestDamage:
    @pytest.mark.parametrize("name", ["model.safetensors", "training_state.safetensors", "training_state.json"])
    def test_a_truncated_file(self, config, halfway, reference, name, capsys):
        path = checkpoints.all_of(halfway / "checkpoints")[-1] / name
        os.truncate(path, path.stat().st_size // 2)
        train(config, halfway)
        said = capsys.readouterr()
        assert (
            "the checkpoint step_00000012 is damaged and passed over: a checkpoint file is missing or alt" in said.err
        )
        assert "going on at step 6, in epoch 2" in said.out
        assert outcome(halfway) == reference

    def test_a_flipped_bit(self, config, halfway, reference, capsys):
        path = checkpoints.all_of(halfway / "checkpoints")[-1] / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-10] ^= 1
        path.write_bytes(content)
        train(config, halfway)
        assert "step_00000012 is damaged and passed over" in capsys.readouterr().err
        assert outcome(halfway) == reference

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', '{"files": {"a": 3}}'])
    def test_a_corrupt_manifest(self, config, halfway, reference, content, capsys):
        (checkpoints.all_of(halfway / "checkpoints")[-1] / "manifest.json").write_text(content)
        train(config, halfway)
        assert "step_00000012 is damaged and passed over" in capsys.readouterr().err
        assert outcome(halfway) == reference

    @pytest.mark.parametrize("name", ["model.safetensors", "training_state.safetensors"])
    def test_no_whole_checkpoint_is_left(self, config, halfway, reference, capsys, name):
        """What is left may be worth something yet: only --restart removes it."""
        for folder in checkpoints.all_of(halfway / "checkpoints"):
            (folder / name).unlink()
        before = contents(halfway)
        with pytest.raises(InputError, match="no checkpoint is whole, in .*checkpoints, expected --restart to start"):
            train(config, halfway)
        assert "step_00000012 is damaged and passed over" in capsys.readouterr().err
        assert contents(halfway) == before
        train(config, halfway, restart=True)
        assert outcome(halfway) == reference

    @pytest.mark.parametrize("content", [None, "", '{"mod', "[]", '{"train": []}'])
    def test_config_json(self, config, halfway, reference, content):
        """A checkpoint has it, too, to be compared with and to be written again."""
        before = json.loads((halfway / "config.json").read_text())
        (halfway / "config.json").unlink()
        if content is not None:
            (halfway / "config.json").write_text(content)
        config.optimizer.learning_rate *= 2
        with pytest.raises(InputError, match="another config: optimizer.learning_rate is 0.001 there and 0.002 here"):
            train(config, halfway)
        config.optimizer.learning_rate /= 2
        train(config, halfway)
        assert outcome(halfway) == reference
        assert json.loads((halfway / "config.json").read_text()) == before

    def test_config_json_of_a_finished_run(self, made, config, tmp_path):
        run = Path(shutil.copytree(made[1] / "reference", tmp_path / "run"))
        before = contents(run)
        (run / "config.json").write_text("{")
        train(config, run)
        assert contents(run) == before

    def test_the_best_checkpoint(self, made, config, tmp_path, capsys):
        """All that come after it are whole: the last goes on, and what it has answered is the best from there on."""
        run = Path(shutil.copytree(made[1] / "reference", tmp_path / "run"))
        best, last = (run / "checkpoints" / name for name in ("step_00000006", "step_00000018"))
        if not best.exists():  # that another one was the best is of no matter here
            shutil.copytree(last, best)
        self.name_best(run, "step_00000006")
        os.truncate(best / "model.safetensors", 100)
        found = train(config, run)
        said = capsys.readouterr()
        assert "step_00000018 is whole, but the best one before it is damaged: a checkpoint file is missing" in said.err
        assert "going on from step_00000018 all the same: the best is now the best from there on" in said.err
        assert "this run is finished, after 3 epochs" in said.out
        assert (found["checkpoint"], found["epoch"], found["step"]) == ("step_00000018", 2, 18)
        assert json.loads((run / "best.json").read_text()) == found
        assert set(evaluate(run)) == {"validation", "test"}

    def name_best(self, run, name):
        """Has all checkpoints call one of them the best."""
        for folder in checkpoints.all_of(run / "checkpoints"):
            state = json.loads((folder / "training_state.json").read_text())
            state["best"]["checkpoint"] = name
            (folder / "training_state.json").write_text(json.dumps(state))
            manifest = json.loads((folder / "manifest.json").read_text())
            checkpoints.workdir.write_manifest(folder, **{k: v for k, v in manifest.items() if k != "files"})

    @pytest.mark.parametrize("content", [None, "", '{"checkpoint": "step_00000099"}'])
    def test_best_json(self, config, halfway, reference, content):
        (halfway / "best.json").unlink()
        if content is not None:
            (halfway / "best.json").write_text(content)
        train(config, halfway)
        assert outcome(halfway) == reference

    def test_metrics_of_another_length(self, config, halfway, reference):
        with (halfway / "metrics.jsonl").open("a") as file:
            file.write('{"split": "train", "st')
        train(config, halfway)
        assert outcome(halfway) == reference

    def test_a_line_of_the_metrics(self, config, halfway, reference, capsys):
        lines = (halfway / "metrics.jsonl").read_text().splitlines(keepends=True)
        (halfway / "metrics.jsonl").write_text("".join([lines[0], lines[1].replace('"step"', '"stop"'), *lines[2:]]))
        train(config, halfway)
        assert "metrics.jsonl line 2 is damaged: it stays as it is" in capsys.readouterr().err
        found = outcome(halfway)
        assert [name for name in reference if found[name] != reference[name]] == ["records"]

    def test_a_copy_of_a_checkpoint_is_nobody(self, config, halfway, reference, capsys):
        folder = halfway / "checkpoints"
        shutil.copytree(folder / "step_00000006", folder / "step_00000012_backup")
        (folder / "step_notes.txt").write_text("x")
        train(config, halfway)
        assert "going on at step 12, in epoch 3" in capsys.readouterr().out
        assert outcome(halfway) == reference
        assert {"step_00000012_backup", "step_notes.txt"} <= {path.name for path in folder.iterdir()}

    def test_an_unfinished_run_can_be_asked(self, halfway):
        assert set(evaluate(halfway)) == {"validation", "test"}
        assert next(predict(halfway, ["good"]))["label"] in ("neg", "pos")


class TestAnotherRun:
    def test_a_changed_config_is_refused_with_the_difference(self, config, halfway):
        before = contents(halfway)
        config.optimizer.learning_rate, config.data.max_length = 2e-3, 16
        with pytest.raises(InputError) as caught:
            train(config, halfway)
        assert (
            "the working directory holds a run of another config: data.max_length is 32 there and 16 here; "
            "optimizer.learning_rate is 0.001 there and 0.002 here, in"
        ) in str(caught.value)
        expected = "--restart to start over, or a new --workdir, or a change of nothing but train.epochs, train.eval"
        assert f"expected {expected}" in str(caught.value)
        assert contents(halfway) == before

    def test_renamed_labels_are_refused(self, config, halfway, table):
        """The same numbers for training, and other answers."""
        before = contents(halfway)
        table.write_text(table.read_text().replace(",neg\n", ",bad\n").replace(",pos\n", ",good\n"))
        expected = (
            "the labels are not what this run began with, in .*films.csv, expected single_label_classification: neg, "
            "pos; --restart .*, got single_label_classification: bad, good"
        )
        with pytest.raises(InputError, match=expected):
            train(config, halfway)
        assert contents(halfway) == before

    def test_an_evaluation_goes_with_the_best_that_it_is_of(self, config, halfway):
        evaluate(halfway)
        best = json.loads((halfway / "best.json").read_text())
        assert train(config, halfway) != best
        assert not (halfway / "evaluation.json").exists()

    def test_changed_data_is_refused(self, config, halfway, table):
        before = contents(halfway)
        lines = table.read_text().splitlines()
        table.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
        expected = (
            r"the (train|validation) split is not what this run began with, in .*films.csv, expected \d+ examples"
        )
        with pytest.raises(InputError, match=expected):
            train(config, halfway)
        assert contents(halfway) == before

    def test_a_finished_run_says_so_and_does_nothing(self, config, halfway, capsys, monkeypatch):
        best = train(config, halfway)
        before = {path: path.stat().st_mtime_ns for path in (halfway / "checkpoints").rglob("*")}
        capsys.readouterr()
        assert train(config, halfway) == best
        said = capsys.readouterr().out
        assert (
            "this run is finished, after 3 epochs, and its data was not looked at again; --config.train.epochs=4 "
            "trains on, --restart starts over"
        ) in said
        assert {path: path.stat().st_mtime_ns for path in (halfway / "checkpoints").rglob("*")} == before

    def test_more_epochs_train_on(self, config, halfway, capsys):
        train(config, halfway)
        config.train.epochs = 4
        train(config, halfway)
        said = capsys.readouterr().out
        assert "train.epochs was 3 and is 4: from here on the learning rate is that of such a run" in said
        assert outcome(halfway)["checkpoint"] == checkpoints.name_of(4 * STEPS)
        assert settings.load_json(halfway / "config.json").train.epochs == 4

    def test_a_run_of_no_steps_is_refused(self, config, halfway, table):
        before, content = contents(halfway), table.read_text()
        table.write_text("text,label\n")
        with pytest.raises(InputError, match="the train split is empty, in .*films.csv, expected at least one example"):
            train(config, halfway)
        table.write_text(content)
        config.train.epochs = 0
        with pytest.raises(InputError, match="wrong value for train.epochs, expected 1 or more, got 0"):
            train(config, halfway)
        assert contents(halfway) == before

    def test_fewer_epochs_than_are_begun_are_refused(self, config, halfway):
        config.train.epochs = 1
        with pytest.raises(
            InputError, match="the run has come further, in train.epochs, expected at least 2; .* got 1"
        ):
            train(config, halfway)

    def test_a_run_without_a_checkpoint_begins_anew_and_says_so(self, config, halfway, reference, capsys):
        shutil.rmtree(halfway / "checkpoints")
        train(config, halfway)
        assert f"there is no checkpoint yet of the run in {halfway}: it begins anew" in capsys.readouterr().err
        assert outcome(halfway) == reference

    def test_restart_starts_over(self, config, halfway, reference):
        train(config, halfway, restart=True)
        assert outcome(halfway) == reference

    def test_two_runs_in_one_folder(self, config, halfway):
        with Workdir(halfway).locked(), pytest.raises(InputError, match="another run is at work in the working dir"):
            train(config, halfway)

    def test_a_lock_that_a_dead_run_left_holds_nobody_up(self, config, halfway):
        (halfway / ".lock").write_text("4711")
        train(config, halfway)

    def test_a_checkpoint_of_an_earlier_version_is_refused_by_name(self, config, halfway):
        folder = checkpoints.all_of(halfway / "checkpoints")[-1]
        for name in checkpoints.workdir.TRAINING_STATE:
            (folder / name).unlink()
        checkpoints.workdir.write_manifest(folder, base="a/bert")
        expected = (
            "this version cannot go on from the checkpoint, in .*step_00000012, expected format 1; .* earlier version"
        )
        with pytest.raises(InputError, match=expected):
            train(config, halfway)
        assert set(evaluate(halfway)) == {"validation", "test"}

    def test_a_checkpoint_of_a_later_version_is_refused_by_name(self, config, halfway):
        folder = checkpoints.all_of(halfway / "checkpoints")[-1]
        content = json.loads((folder / "training_state.json").read_text())
        (folder / "training_state.json").write_text(json.dumps(content | {"format": 2, "news": 1}))
        manifest = json.loads((folder / "manifest.json").read_text())
        checkpoints.workdir.write_manifest(folder, **{k: v for k, v in manifest.items() if k != "files"})
        with pytest.raises(InputError, match="cannot go on from the checkpoint, .* expected format 1; .* got format 2"):
            train(config, halfway)

    def test_other_surroundings_are_warned_of(self, config, halfway, capsys, monkeypatch):
        from tf_finetune import surroundings

        found = surroundings.found("float32")
        monkeypatch.setattr(surroundings, "found", lambda policy: found | {"cores": 64})
        train(config, halfway)
        assert f"warning: cores was {found['cores']} and is 64: the last bits of the weights" in capsys.readouterr().err


class TestDisk:
    @pytest.fixture
    def disk(self, tmp_path):
        """A file system of 4 MiB."""
        folder = tmp_path / "disk"
        folder.mkdir()
        made = self.mount(folder, "size=4m")
        if made.returncode:
            pytest.skip(f"no file system of our own can be mounted: {made.stderr.strip()}")
        yield folder
        subprocess.run(["umount", "--lazy", folder], check=True)  # TensorBoard's file may be open yet

    def mount(self, folder, options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        return subprocess.run(command, capture_output=True, text=True)

    def fill(self, folder, *, left=0):
        """All but so many bytes of it; raises nothing, so that it is the run that meets a full disk."""
        filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(filler, bytes(4096))
        os.truncate(filler, os.fstat(filler).st_size - left)
        os.close(filler)

    FULL = "cannot be written.*No space left on device"
    NO_CHECKPOINT = f"step_00000012 {FULL}.*; step_00000006 is kept, and training can go on from it"

    @pytest.mark.parametrize(
        ("point", "left", "expected"),
        [
            ("validation", 0, FULL),
            ("tokenizer", 0, NO_CHECKPOINT),
            ("tokenizer", 4096, NO_CHECKPOINT),  # one page makes its library say so in another way
            ("saving", 0, NO_CHECKPOINT),
            ("pruning", 0, FULL),
        ],
    )
    def test_a_full_one_loses_nothing(self, config, reference, disk, monkeypatch, point, left, expected):
        """From a moment on, the second time that it comes: in the second epoch."""
        with monkeypatch.context() as patched:
            faults.at(point, 2, lambda: self.fill(disk, left=left), set_attribute=patched.setattr)
            with pytest.raises(RunError, match=expected):
                train(config, disk / "run")
        (disk / "filler").unlink()
        train(config, disk / "run")
        assert outcome(disk / "run") == reference

    def test_one_that_cannot_be_written(self, config, disk, monkeypatch):
        assert killed_at(config, disk / "run", monkeypatch, "step", STEPS + 3)
        before = contents(disk)
        self.mount(disk, "remount,ro")
        for run in (disk / "run", disk / "new"):
            with pytest.raises(InputError, match="cannot write the working directory, in .*, got Read-only file sys"):
                train(config, run)
        assert contents(disk) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o500)
    with pytest.raises(InputError, match="cannot write the working directory, in .*, got Permission denied"):
        train(config, tmp_path / "run")
