import json
import shutil

import numpy as np
import pytest

from tf_finetune import workdir
from tf_finetune.errors import InputError, RunError
from tf_finetune.training import checkpoints
from tf_finetune.training.checkpoints import TrainingState


class FakePart:
    """Stands in for a model or a tokenizer: all it does is save itself."""

    def __init__(self, *names, error=None):
        self.names, self.error = names, error

    def save_pretrained(self, folder):
        for name in self.names:
            (folder / name).write_text(f"content of {name}")
        if self.error:
            raise self.error


ARRAYS = {"seeds/0": np.array([1, 2], np.uint32), "optimizer/adamw/iteration": np.array(7)}
MODEL, TOKENIZER = FakePart("config.json", "model.safetensors"), FakePart("tokenizer.json", "tokenizer_config.json")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestSave:
    @pytest.mark.parametrize(
        ("step", "name"), [(0, "step_00000000"), (528, "step_00000528"), (123456789, "step_123456789")]
    )
    def test_name(self, tmp_path, step, name):
        assert (
            checkpoints.save(
                MODEL, TOKENIZER, tmp_path / "checkpoints", TrainingState(step=step), ARRAYS, base="a/bert@1234"
            )
            == tmp_path / "checkpoints" / name
        )

    def test_files(self, tmp_path):
        folder = checkpoints.save(MODEL, TOKENIZER, tmp_path, TrainingState(step=1), ARRAYS, base="a/bert@1234")
        assert names(folder) == sorted([*MODEL.names, *TOKENIZER.names, *workdir.TRAINING_STATE, workdir.MANIFEST])

    def test_manifest_holds(self, tmp_path):
        workdir.check_manifest(
            checkpoints.save(MODEL, TOKENIZER, tmp_path, TrainingState(step=1), ARRAYS, base="a/bert@1234")
        )

    @pytest.mark.parametrize("name", [*MODEL.names, *TOKENIZER.names, *workdir.TRAINING_STATE])
    def test_manifest_covers_every_file(self, tmp_path, name):
        folder = checkpoints.save(MODEL, TOKENIZER, tmp_path, TrainingState(step=1), ARRAYS, base="a/bert@1234")
        (folder / name).write_text("CONTENT")
        with pytest.raises(InputError, match=f"missing or altered, in .*{name}"):
            workdir.check_manifest(folder)

    @pytest.mark.parametrize("failing", ["model", "tokenizer"])
    def test_failure_leaves_nothing(self, tmp_path, failing):
        broken = FakePart("half", error=OSError("disk full"))
        parts = (broken, TOKENIZER) if failing == "model" else (MODEL, broken)
        with pytest.raises(RunError, match="cannot be written: disk full; none was kept before it"):
            checkpoints.save(*parts, tmp_path, TrainingState(step=1), ARRAYS, base="a/bert@1234")
        assert names(tmp_path) == []

    def test_failure_keeps_the_earlier_checkpoint(self, tmp_path):
        earlier = checkpoints.save(MODEL, TOKENIZER, tmp_path, TrainingState(step=1), ARRAYS, base="a/bert@1234")
        with pytest.raises(
            RunError, match="cannot be written: disk full; step_00000001 is kept, and training can go on from it"
        ):
            checkpoints.save(
                FakePart(error=OSError("disk full")),
                TOKENIZER,
                tmp_path,
                TrainingState(step=2),
                ARRAYS,
                base="a/bert@1234",
            )
        workdir.check_manifest(earlier)

    def test_of_the_same_step_is_replaced(self, tmp_path):
        for validation in ({}, {"loss": 0.5}):
            state = TrainingState(step=1, validation=validation)
            folder = checkpoints.save(MODEL, TOKENIZER, tmp_path, state, ARRAYS)
        assert names(tmp_path) == ["step_00000001"]
        assert json.loads((folder / "training_state.json").read_text())["validation"] == {"loss": 0.5}


class TestNewest:
    def test_is_what_was_saved(self, tmp_path):
        state = TrainingState(epoch=1, batch=2, step=30, best={"checkpoint": "step_00000002"}, data={"train": {}})
        for one in (TrainingState(step=2), state):
            checkpoints.save(MODEL, TOKENIZER, tmp_path, one, ARRAYS, base="a/bert@1234")
        folder, found, manifest = checkpoints.newest(tmp_path, warn=pytest.fail)
        assert (folder.name, found, manifest["base"]) == ("step_00000030", state, "a/bert@1234")
        np.testing.assert_array_equal(checkpoints.arrays_in(folder)["seeds/0"], ARRAYS["seeds/0"])

    def test_none(self, tmp_path):
        assert checkpoints.newest(tmp_path / "absent", warn=pytest.fail) is None

    def test_damaged_ones_are_passed_over(self, tmp_path):
        for step in (1, 2, 3):
            checkpoints.save(MODEL, TOKENIZER, tmp_path, TrainingState(step=step), ARRAYS)
        (tmp_path / "step_00000003" / "manifest.json").write_text("{")
        (tmp_path / "step_00000002" / "model.safetensors").unlink()
        said = []
        assert checkpoints.newest(tmp_path, warn=said.append)[0].name == "step_00000001"
        assert ["step_00000003 is damaged" in said[0], "step_00000002 is damaged" in said[1]] == [True, True]

    @pytest.mark.parametrize("fault", ["gone", "altered", "training state gone"])
    def test_the_best_before_must_be_whole_too(self, tmp_path, fault):
        for step, best in ((1, 1), (2, 2), (3, 2)):
            state = TrainingState(step=step, best={"checkpoint": checkpoints.name_of(best)})
            checkpoints.save(MODEL, TOKENIZER, tmp_path, state, ARRAYS)
        if fault == "gone":
            shutil.rmtree(tmp_path / "step_00000002")
        else:
            name = "model.safetensors" if fault == "altered" else "training_state.json"
            (tmp_path / "step_00000002" / name).write_text("x")
        said = []
        is_whole = fault == "training state gone"
        assert checkpoints.newest(tmp_path, warn=said.append)[0].name == f"step_0000000{3 if is_whole else 1}"
        assert [line.split(" is ")[0] for line in said][:1] == ([] if is_whole else ["the checkpoint step_00000003"])

    @pytest.mark.parametrize("validation", [{}, {"loss": 0.25}])
    def test_where_the_best_is_damaged_and_all_name_it_the_last_goes_on_without(self, tmp_path, validation):
        best = {"checkpoint": "step_00000001", "validation": {"loss": 0.5}}
        for step in (1, 2, 3):
            state = TrainingState(epoch=2, step=step, best=best, validation=validation, validations_since_best=1)
            checkpoints.save(MODEL, TOKENIZER, tmp_path, state, ARRAYS)
        (tmp_path / "step_00000001" / "model.safetensors").write_text("x")
        said = []
        folder, found, _ = checkpoints.newest(tmp_path, warn=said.append)
        assert (folder.name, found.validations_since_best) == ("step_00000003", 0)
        own = {"checkpoint": "step_00000003", "epoch": 1, "step": 3, "validation": validation}
        assert found.best == (own if validation else {})
        assert said[0].startswith("the checkpoint step_00000003 is whole, but the best one before it is damaged: ")
        assert said[-1] == "going on from step_00000003 all the same: the best is now the best from there on"

    def test_only_what_is_named_like_a_checkpoint_is_one(self, tmp_path):
        for step in (1, 10**8):
            checkpoints.save(MODEL, TOKENIZER, tmp_path, TrainingState(step=step), ARRAYS)
        shutil.copytree(tmp_path / "step_100000000", tmp_path / "step_100000000_backup")
        (tmp_path / "step_notes.txt").write_text("x")
        (tmp_path / "step_00000003").write_text("x")
        assert [path.name for path in checkpoints.all_of(tmp_path)] == ["step_00000001", "step_100000000"]

    @pytest.mark.parametrize("content", [{}, {"format": 2, "unknown": 3}])
    def test_another_format_is_refused_and_not_passed_over(self, tmp_path, content):
        folder = checkpoints.save(MODEL, TOKENIZER, tmp_path, TrainingState(step=1), ARRAYS)
        (folder / "training_state.json").write_text(json.dumps(content))
        workdir.write_manifest(folder)
        with pytest.raises(InputError, match="this version cannot go on from the checkpoint, in .*, expected format 1"):
            checkpoints.newest(tmp_path, warn=pytest.fail)


class TestPrune:
    def fill(self, folder, steps=(1, 2, 30, 4), best=None):
        for step in steps:
            named = {"checkpoint": checkpoints.name_of(best)} if best and step >= best else {}
            checkpoints.save(MODEL, TOKENIZER, folder, TrainingState(step=step, best=named), ARRAYS)

    @pytest.mark.parametrize(
        ("last", "best", "kept"),
        [(1, None, [30]), (1, 2, [2, 30]), (2, 4, [4, 30]), (2, 1, [1, 4, 30]), (9, 1, [1, 2, 4, 30])],
    )
    def test_keeps_the_last_ones_and_the_best(self, tmp_path, last, best, kept):
        self.fill(tmp_path, best=best)
        checkpoints.prune(tmp_path, last=last)
        assert names(tmp_path) == [checkpoints.name_of(step) for step in kept]
        for name in names(tmp_path):
            workdir.check_manifest(tmp_path / name)

    def test_keeps_what_an_earlier_one_calls_the_best(self, tmp_path):
        """It may be gone on from, where the last one is damaged."""
        for step, best in ((1, 1), (2, 1), (3, 3)):
            state = TrainingState(step=step, best={"checkpoint": checkpoints.name_of(best)})
            checkpoints.save(MODEL, TOKENIZER, tmp_path, state, ARRAYS)
        checkpoints.prune(tmp_path, last=2)
        assert names(tmp_path) == ["step_00000001", "step_00000002", "step_00000003"]
        checkpoints.prune(tmp_path, last=1)
        assert names(tmp_path) == ["step_00000003"]

    def test_of_damaged_ones(self, tmp_path):
        self.fill(tmp_path)
        (tmp_path / "step_00000030" / "training_state.json").write_text("[")
        checkpoints.prune(tmp_path, last=1)
        assert names(tmp_path) == ["step_00000030"]

    def test_remove_later(self, tmp_path):
        self.fill(tmp_path)
        checkpoints.remove_later(tmp_path, tmp_path / "step_00000002")
        assert names(tmp_path) == ["step_00000001", "step_00000002"]

    def test_leaves_other_files_alone(self, tmp_path):
        self.fill(tmp_path)
        (tmp_path / "notes.txt").write_text("x")
        checkpoints.prune(tmp_path, last=1)
        assert names(tmp_path) == ["notes.txt", "step_00000030"]

    def test_nothing_there(self, tmp_path):
        checkpoints.prune(tmp_path / "absent", last=1)
