import contextlib
import json
import os
import subprocess
import sys

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
        with workdir.published_folder(tmp_path / "target") as folder:
            (folder / "file").touch(mode=0o600)
        assert (tmp_path / "target").stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "target" / "file").stat().st_mode & 0o777 == 0o644

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

    def test_an_old_folder_is_replaced_where_that_is_asked_for(self, tmp_path):
        for name in ("old", "new"):
            with workdir.published_folder(tmp_path / "target", replace=True) as folder:
                (folder / name).write_text("x")
        assert names(tmp_path) == ["target"]
        assert names(tmp_path / "target") == ["new"]

    def test_the_old_folder_comes_back_where_the_new_one_cannot(self, tmp_path, monkeypatch):
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "old").write_text("x")
        rename, calls = os.rename, []

        def second_fails(*paths):
            calls.append(paths)
            if len(calls) == 2:
                raise OSError(5, "Input/output error")
            rename(*paths)

        monkeypatch.setattr(workdir.os, "rename", second_fails)
        with pytest.raises(OSError, match="Input/output"), workdir.published_folder(tmp_path / "target", replace=True):
            pass
        assert names(tmp_path / "target") == ["old"]

    def test_files_are_on_the_disk_before_the_folder_has_its_name(self, tmp_path, monkeypatch):
        events = []
        rename, sync = os.rename, workdir._sync
        monkeypatch.setattr(workdir, "_sync", lambda path: (events.append(path.name), sync(path)))
        monkeypatch.setattr(workdir.os, "rename", lambda *paths: (events.append("renamed"), rename(*paths)))
        with workdir.published_folder(tmp_path / "target") as folder:
            (folder / "deeper").mkdir()
            (folder / "deeper" / "file").write_text("x")
        assert set(events[:3]) == {"deeper", "file", folder.name}
        assert events[3:] == ["renamed", tmp_path.name]


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

    def test_a_file_that_the_disk_cannot_give_back(self, manifested, monkeypatch):
        def broken(path):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(workdir, "_sha256", broken)
        with pytest.raises(InputError, match="missing or altered, in .*vocab, expected"):
            workdir.check_manifest(manifested)

    def test_missing_file(self, manifested):
        (manifested / "weights").unlink()
        with pytest.raises(InputError, match=r"missing or altered, in .*weights"):
            workdir.check_manifest(manifested)

    @pytest.mark.parametrize(
        "content",
        [None, b"", b"{}", b"[]", b"\xff", b'{"files": {"weights": {', b'{"files": [1]}', b'{"files": {"weights": 3}}'],
    )
    def test_unreadable_manifest(self, manifested, content):
        (manifested / workdir.MANIFEST).unlink()
        if content is not None:
            (manifested / workdir.MANIFEST).write_bytes(content)
        with pytest.raises(InputError, match=r"checkpoint is incomplete, in .*, expected a readable manifest\.json"):
            workdir.check_manifest(manifested)


class TestWorkdir:
    def test_a_folder_that_cannot_be_made(self):
        with pytest.raises(InputError, match="cannot write the working directory, in /proc/run, got "):
            hold(Workdir("/proc/run"))

    @pytest.mark.parametrize("content", ['{"model_type": "bert"}', "[]", "3", "no json", "\x00"])
    def test_somebody_elses_config_json_is_never_taken_over(self, tmp_path, content):
        run = Workdir(tmp_path)
        run.config.write_text(content)
        with pytest.raises(
            InputError, match="a config.json that is not a run's, in .*, expected a new or an empty folder"
        ):
            run.check_ours()

    @pytest.mark.parametrize(
        "name", ["checkpoints", "checkpoints/step_00000001", "metrics.jsonl", "tensorboard", "best.json"]
    )
    def test_nor_is_anything_else_of_a_runs_names(self, tmp_path, name):
        path = tmp_path / name
        path.mkdir(parents=True) if "." not in name else path.write_text("x")
        what = name.split("/")[0]
        with pytest.raises(InputError, match=f"the working directory holds a {what} that is not a run's, in "):
            Workdir(tmp_path).check_ours()

    def test_a_run_is_ours_by_its_checkpoints_where_its_config_is_damaged(self, tmp_path):
        run = Workdir(tmp_path)
        (run.checkpoints / "step_00000001").mkdir(parents=True)
        (run.checkpoints / "step_00000001" / "manifest.json").write_text("{}")
        run.check_ours()
        run.config.write_text("{")
        run.check_ours()

    @pytest.mark.parametrize("steps", range(1, 7))
    def test_what_is_left_of_a_run_that_is_killed_while_it_is_removed_is_ours(self, tmp_path, monkeypatch, steps):
        run = Workdir(tmp_path)
        for folder in (run.checkpoints / "step_00000001", run.tensorboard):
            folder.mkdir(parents=True)
        run.config.write_text('{"model": {}, "data": {}, "train": {}}')
        for path in (run.metrics, run.best):
            path.write_text("x")
        calls = []

        def counted(function):
            def called(*args, **kwargs):
                calls.append(function)
                if len(calls) == steps:
                    raise KeyboardInterrupt
                return function(*args, **kwargs)

            return called

        with monkeypatch.context() as patched:
            patched.setattr(workdir.Path, "unlink", counted(workdir.Path.unlink))
            patched.setattr(workdir, "remove_folder", counted(workdir.remove_folder))
            with pytest.raises(KeyboardInterrupt):
                run.clear()
        run.check_ours()
        run.clear()
        assert names(tmp_path) == []

    def test_a_run_is_ours_and_so_is_an_empty_folder(self, tmp_path):
        run = Workdir(tmp_path)
        run.check_ours()
        run.config.write_text('{"model": {}, "data": {}, "train": {}}')
        run.check_ours()

    def test_a_tilde_is_the_home_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert Workdir("~/run").path == tmp_path / "run"

    def test_clear_removes_only_ours(self, tmp_path):
        run = Workdir(tmp_path)
        (run.checkpoints / "step_00000001").mkdir(parents=True)
        (run.export / "1").mkdir(parents=True)
        for path in (run.config, run.metrics, run.best, run.evaluation, tmp_path / "notes.txt"):
            path.write_text("x")
        (run.checkpoints / "step_notes.txt").write_text("x")
        run.clear()
        assert names(tmp_path) == ["checkpoints", "export", "notes.txt"]
        assert names(run.checkpoints) == ["step_notes.txt"]
        assert names(run.export) == ["1"]

    def test_clear_of_an_empty_folder(self, tmp_path):
        Workdir(tmp_path).clear()

    def test_what_was_not_finished_is_removed(self, tmp_path):
        run = Workdir(tmp_path)
        for folder in (".step_00000002-abc", "step_00000001", "notes"):
            (run.checkpoints / folder).mkdir(parents=True)
        for name in (".best.json.4711", ".config.json.12", "best.json", ".notes.json.3"):
            (tmp_path / name).write_text("x")
        run.remove_leftovers()
        assert names(run.checkpoints) == ["notes", "step_00000001"]
        assert names(tmp_path) == [".notes.json.3", "best.json", "checkpoints"]

    def test_what_was_to_be_replaced_comes_back_where_nothing_took_its_place(self, tmp_path):
        run = Workdir(tmp_path)
        for name in (".replaced-a/step_00000001", ".replaced-b/step_00000002", "step_00000002", ".removed-c/step_3"):
            (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / ".replaced-a" / "step_00000001" / "mine").write_text("x")
        (tmp_path / ".removed-d" / "checkpoints").mkdir(parents=True)
        run.remove_leftovers()
        assert names(run.checkpoints) == ["step_00000001", "step_00000002"]
        assert names(run.checkpoints / "step_00000001") == ["mine"]
        assert names(tmp_path) == ["checkpoints"]

    def test_another_best_takes_the_evaluation_of_the_one_before_with_it(self, tmp_path):
        run = Workdir(tmp_path)
        for best, stays in (({"step": 1}, False), ({"step": 1}, True), ({"step": 2}, False)):
            run.evaluation.write_text("{}")
            run.publish_best(best)
            assert (json.loads(run.best.read_text()), run.evaluation.exists()) == (best, stays)

    def test_best_checkpoint_of_an_empty_folder(self, tmp_path):
        with pytest.raises(
            InputError, match="no trained model, in .*, expected a workdir that `tf-finetune train` filled"
        ):
            Workdir(tmp_path).best_checkpoint()

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"checkpoint": 3}'])
    def test_best_checkpoint_of_a_damaged_best_json(self, tmp_path, content):
        (tmp_path / "best.json").write_text(content)
        with pytest.raises(InputError, match="unreadable file, in .*best.json, expected the name of a checkpoint"):
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

    def test_best_checkpoint_is_asked_for_without_what_only_training_reads(self, manifested):
        run = Workdir(manifested.parent)
        run.checkpoints.mkdir()
        (manifested / "training_state.json").write_text("{}")
        workdir.write_manifest(manifested)
        (manifested / "training_state.json").write_text("")
        manifested.rename(run.checkpoints / "step_00000007")
        json_files.write(run.best, {"checkpoint": "step_00000007"})
        assert run.best_checkpoint().name == "step_00000007"
        with pytest.raises(InputError, match="missing or altered, in .*training_state.json"):
            workdir.check_manifest(run.best_checkpoint())


def hold(run, inside=lambda: None):
    with run.locked():
        inside()


class TestLock:
    def test_the_folder_is_made(self, tmp_path):
        run = Workdir(tmp_path / "a" / "b")
        hold(run, lambda: run.config.write_text("x"))
        assert names(run.path) == [".lock", "config.json"]

    @pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
    def test_nothing_is_left_of_a_folder_made_in_vain(self, tmp_path, error):
        def fail():
            assert (tmp_path / "a" / "b").is_dir()
            if error:
                raise error

        with pytest.raises(error) if error else contextlib.nullcontext():
            hold(Workdir(tmp_path / "a" / "b"), fail)
        assert names(tmp_path) == []

    def test_a_folder_that_was_there_stays(self, tmp_path):
        hold(Workdir(tmp_path))
        assert tmp_path.is_dir()
        assert names(tmp_path) == []

    def test_a_second_one_is_refused_and_the_first_goes_on(self, tmp_path):
        (tmp_path / "run").mkdir()
        refused = pytest.raises(InputError, match="another run is at work in the working directory, in .*run, expected")

        def second():
            with refused:
                hold(Workdir(tmp_path / "run"))

        hold(Workdir(tmp_path / "run"), second)
        hold(Workdir(tmp_path / "run"))

    def test_a_process_that_was_killed_holds_nothing(self, tmp_path):
        code = (
            "import os, sys; from tf_finetune.workdir import Workdir\n"
            "with Workdir(sys.argv[1]).locked(): os.kill(os.getpid(), 9)"
        )
        result = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
        assert result.returncode == -9
        assert names(tmp_path) == [".lock"]
        hold(Workdir(tmp_path))

    def test_a_file_system_without_locks_is_warned_of(self, tmp_path, monkeypatch, capsys):
        def none_here(*args, **kwargs):
            raise NotImplementedError

        monkeypatch.setattr(workdir.filelock.FileLock, "acquire", none_here)
        hold(Workdir(tmp_path))
        assert "warning: this file system has no locks" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("inner", "reason"),
        [("file", "a file"), ("file/run", "Not a directory")],
        ids=["is_a_file", "below_a_file"],
    )
    def test_where_a_file_is_in_the_way(self, tmp_path, inner, reason):
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match=f"cannot write the working directory, in .*{inner}, got {reason}"):
            hold(Workdir(tmp_path / inner))

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_in_a_read_only_folder(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(InputError, match="cannot write the working directory, in .*, got Permission denied"):
            hold(Workdir(tmp_path))
