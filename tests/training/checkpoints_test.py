import pytest

from tf_finetune import workdir
from tf_finetune.errors import InputError
from tf_finetune.training import checkpoints


class FakePart:
    """Stands in for a model or a tokenizer: all it does is save itself."""

    def __init__(self, *names, error=None):
        self.names, self.error = names, error

    def save_pretrained(self, folder):
        for name in self.names:
            (folder / name).write_text(f"content of {name}")
        if self.error:
            raise self.error


MODEL, TOKENIZER = FakePart("config.json", "model.safetensors"), FakePart("tokenizer.json", "tokenizer_config.json")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestSave:
    @pytest.mark.parametrize(
        ("step", "name"), [(0, "step_00000000"), (528, "step_00000528"), (123456789, "step_123456789")]
    )
    def test_name(self, tmp_path, step, name):
        assert (
            checkpoints.save(MODEL, TOKENIZER, tmp_path / "checkpoints", step=step, base="a/bert@1234")
            == tmp_path / "checkpoints" / name
        )

    def test_files(self, tmp_path):
        folder = checkpoints.save(MODEL, TOKENIZER, tmp_path, step=1, base="a/bert@1234")
        assert names(folder) == sorted([*MODEL.names, *TOKENIZER.names, workdir.MANIFEST])

    def test_manifest_holds(self, tmp_path):
        workdir.check_manifest(checkpoints.save(MODEL, TOKENIZER, tmp_path, step=1, base="a/bert@1234"))

    @pytest.mark.parametrize("name", [*MODEL.names, *TOKENIZER.names])
    def test_manifest_covers_every_file(self, tmp_path, name):
        folder = checkpoints.save(MODEL, TOKENIZER, tmp_path, step=1, base="a/bert@1234")
        (folder / name).write_text("CONTENT")
        with pytest.raises(InputError, match=f"missing or altered, in .*{name}"):
            workdir.check_manifest(folder)

    @pytest.mark.parametrize("failing", ["model", "tokenizer"])
    def test_failure_leaves_nothing(self, tmp_path, failing):
        broken = FakePart("half", error=OSError("disk full"))
        parts = (broken, TOKENIZER) if failing == "model" else (MODEL, broken)
        with pytest.raises(OSError, match="disk full"):
            checkpoints.save(*parts, tmp_path, step=1, base="a/bert@1234")
        assert names(tmp_path) == []

    def test_failure_keeps_the_earlier_checkpoint(self, tmp_path):
        earlier = checkpoints.save(MODEL, TOKENIZER, tmp_path, step=1, base="a/bert@1234")
        with pytest.raises(OSError, match="disk full"):
            checkpoints.save(FakePart(error=OSError("disk full")), TOKENIZER, tmp_path, step=2, base="a/bert@1234")
        workdir.check_manifest(earlier)


class TestPrune:
    def test_keeps_one(self, tmp_path):
        folders = [checkpoints.save(MODEL, TOKENIZER, tmp_path, step=step, base="a/bert@1234") for step in (1, 2, 30)]
        checkpoints.prune(tmp_path, keep=folders[1])
        assert names(tmp_path) == ["step_00000002"]
        workdir.check_manifest(folders[1])

    def test_leaves_other_files_alone(self, tmp_path):
        folder = checkpoints.save(MODEL, TOKENIZER, tmp_path, step=1, base="a/bert@1234")
        (tmp_path / "notes.txt").write_text("x")
        checkpoints.prune(tmp_path, keep=folder)
        assert names(tmp_path) == ["notes.txt", "step_00000001"]

    def test_nothing_there(self, tmp_path):
        checkpoints.prune(tmp_path / "absent", keep=tmp_path / "absent" / "step_00000001")
