import json
import os

import pytest

from tf_finetune import json_files, workdir
from tf_finetune.errors import InputError
from tf_finetune.workdir import Workdir


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def manifested(tmp_path):
    """A folder of two files, one of them deeper, with their manifest."""
    folder = tmp_path / "checkpoint"
    (folder / "deeper").mkdir(parents=True)
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "deeper" / "vocab").write_bytes(b"words")
    workdir.write_manifest(folder)
    return folder


class TestPublishedFolder:
    def test_is_not_there_before_the_end(self, tmp_path):
        target = tmp_path / "new" / "target"
        with workdir.published_folder(target) as folder:
            (folder / "file").write_text("x")
            assert not target.exists()
        assert names(target) == ["file"]
        assert names(target.parent) == ["target"]

    def test_others_may_read_it(self, tmp_path):
        with workdir.published_folder(tmp_path / "target"):
            pass
        assert (tmp_path / "target").stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_failure_leaves_nothing(self, tmp_path, error):
        def fill():
            with workdir.published_folder(tmp_path / "target") as folder:
                (folder / "file").write_text("x")
                raise error

        with pytest.raises(error):
            fill()
        assert names(tmp_path) == []

    def test_failing_rename_leaves_the_old_folder_alone(self, tmp_path):
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "old").write_text("old")
        with pytest.raises(OSError, match="not empty"), workdir.published_folder(tmp_path / "target"):
            pass
        assert names(tmp_path) == ["target"]
        assert names(tmp_path / "target") == ["old"]


class TestManifest:
    def test_whole_folder_passes(self, manifested):
        workdir.check_manifest(manifested)

    def test_lists_every_file_but_itself(self, manifested):
        files = json.loads((manifested / workdir.MANIFEST).read_text())["files"]
        assert {name: entry["bytes"] for name, entry in files.items()} == {"weights": 10, "deeper/vocab": 5}

    def test_sha256_is_the_standard_one(self, manifested):
        files = json.loads((manifested / workdir.MANIFEST).read_text())["files"]
        assert files["weights"]["sha256"] == "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"

    @pytest.mark.parametrize("name", ["weights", "deeper/vocab"])
    def test_flipped_bit(self, manifested, name):
        content = bytearray((manifested / name).read_bytes())
        content[2] ^= 1
        (manifested / name).write_bytes(content)
        with pytest.raises(
            InputError, match=f"a checkpoint file is missing or altered, in .*{name}, expected .* bytes"
        ):
            workdir.check_manifest(manifested)

    def test_truncated_file(self, manifested):
        os.truncate(manifested / "weights", 9)
        with pytest.raises(
            InputError, match=r"altered, in .*weights, expected 10 bytes with sha256 84d89877f0d4\.\.\."
        ):
            workdir.check_manifest(manifested)

    def test_missing_file(self, manifested):
        (manifested / "weights").unlink()
        with pytest.raises(InputError, match=r"missing or altered, in .*weights"):
            workdir.check_manifest(manifested)

    @pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"\xff", b'{"files": {"weights": {'])
    def test_unreadable_manifest(self, manifested, content):
        (manifested / workdir.MANIFEST).unlink()
        if content is not None:
            (manifested / workdir.MANIFEST).write_bytes(content)
        with pytest.raises(InputError, match=r"checkpoint is incomplete, in .*, expected a readable manifest\.json"):
            workdir.check_manifest(manifested)


class TestWorkdir:
    def test_a_fresh_folder_is_free(self, tmp_path):
        Workdir(tmp_path).check_free({}, restart=False)

    def test_a_folder_with_a_run_is_not_free(self, tmp_path):
        run = Workdir(tmp_path)
        run.config.write_text('{"model": {}, "data": {}, "train": {}}')
        with pytest.raises(InputError, match="already holds a run, in .*, expected a new --workdir, or --restart"):
            run.check_free({}, restart=False)
        run.check_free({}, restart=True)

    def test_a_run_of_another_config_is_told_by_what_differs(self, tmp_path):
        run = Workdir(tmp_path)
        there = {
            "model": {"checkpoint": "a/bert@1234"},
            "data": {"source": str(tmp_path / "x.csv")},
            "train": {"epochs": 3},
        }
        run.config.write_text(json.dumps(there))
        same = {"model": {"checkpoint": "a/bert"}, "data": {"source": str(tmp_path / "x.csv")}, "train": {"epochs": 3}}
        with pytest.raises(InputError, match="already holds a run, in"):
            run.check_free(same, restart=False)
        other = same | {"train": {"epochs": 4, "batch_size": 8}}
        expected = r"already holds a run of another config \(train.epochs is 3 there and 4 here and 1 more\), in"
        with pytest.raises(InputError, match=expected):
            run.check_free(other, restart=False)

    def test_a_folder_that_cannot_be_made(self):
        with pytest.raises(InputError, match="cannot write the working directory, in /proc/run, got /proc: "):
            Workdir("/proc/run").check_free({}, restart=False)

    @pytest.mark.parametrize("content", ['{"model_type": "bert"}', "[]", "3", "no json", "\x00"])
    def test_somebody_elses_config_json_is_never_taken_over(self, tmp_path, content):
        run = Workdir(tmp_path)
        run.config.write_text(content)
        with pytest.raises(
            InputError, match="a config.json that is not a run's, in .*, expected a new or an empty folder"
        ):
            run.check_free({}, restart=True)

    def test_checkpoints_alone_are_a_run(self, tmp_path):
        (tmp_path / "checkpoints").mkdir()
        with pytest.raises(InputError, match="already holds a run"):
            Workdir(tmp_path).check_free({}, restart=False)

    def test_a_tilde_is_the_home_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert Workdir("~/run").path == tmp_path / "run"

    def test_clear_removes_only_ours(self, tmp_path):
        run = Workdir(tmp_path)
        (run.checkpoints / "step_00000001").mkdir(parents=True)
        (run.export / "1").mkdir(parents=True)
        for path in (run.config, run.metrics, run.best, run.evaluation, tmp_path / "notes.txt"):
            path.write_text("x")
        run.clear()
        assert names(tmp_path) == ["export", "notes.txt"]
        assert names(run.export) == ["1"]

    def test_clear_of_an_empty_folder(self, tmp_path):
        Workdir(tmp_path).clear()

    def test_create_makes_parents_and_leaves_nothing_inside(self, tmp_path):
        Workdir(tmp_path / "a" / "b").create()
        assert names(tmp_path / "a" / "b") == []

    @pytest.mark.parametrize(
        ("inner", "reason"),
        [("file", "File exists"), ("file/run", "Not a directory")],
        ids=["is_a_file", "below_a_file"],
    )
    def test_create_where_a_file_is_in_the_way(self, tmp_path, inner, reason):
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match=f"cannot write the working directory, in .*{inner}, got {reason}"):
            Workdir(tmp_path / inner).create()

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_create_in_a_read_only_folder(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(InputError, match="cannot write the working directory, in .*, got Permission denied"):
            Workdir(tmp_path).create()

    def test_best_checkpoint_of_an_empty_folder(self, tmp_path):
        with pytest.raises(
            InputError, match="no trained model, in .*, expected a workdir that `tf-finetune train` filled"
        ):
            Workdir(tmp_path).best_checkpoint()

    def test_best_checkpoint_is_the_one_named(self, manifested):
        run = Workdir(manifested.parent)
        run.checkpoints.mkdir()
        manifested.rename(run.checkpoints / "step_00000007")
        json_files.write(run.best, {"checkpoint": "step_00000007"})
        assert run.best_checkpoint() == run.checkpoints / "step_00000007"

    def test_best_checkpoint_is_checked(self, manifested):
        run = Workdir(manifested.parent)
        run.checkpoints.mkdir()
        (manifested / "weights").unlink()
        manifested.rename(run.checkpoints / "step_00000007")
        json_files.write(run.best, {"checkpoint": "step_00000007"})
        with pytest.raises(InputError, match="missing or altered"):
            run.best_checkpoint()
