import errno
import json
import os
import socket
import subprocess
import sys

import pytest

from tf_finetune import hub as tf_hub
from tf_finetune.errors import InputError

WEIGHTS = b"weights" * 100
CHECKPOINT = {
    "config.json": b"{}",
    "tokenizer_config.json": b'{"do_lower_case": true}',
    "vocab.txt": b"[PAD]\n",
    "model.safetensors": WEIGHTS,
}
OTHERS = {"pytorch_model.bin": b"pickle", "tf_model.h5": b"h5", "onnx/model.onnx": b"onnx", "README.md": b"# a card"}


@pytest.fixture
def commit(hub, empty_hub_cache):
    """The commit of owner/bert: a checkpoint and much that nobody needs."""
    return hub.add("owner/bert", CHECKPOINT | OTHERS)


@pytest.fixture
def offline(monkeypatch):
    import huggingface_hub.constants

    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def unreachable(monkeypatch):
    """Takes the hub away: nobody listens at its address any more."""
    import huggingface_hub.hf_api

    def cut():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)

    return cut


@pytest.fixture
def impatient(monkeypatch):
    """huggingface_hub waits a second before it resumes a download; here it does not."""
    import huggingface_hub.file_download

    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("owner/bert", ("owner/bert", None)),
        ("owner/bert@v1", ("owner/bert", "v1")),
        ("bert@refs/pr/1", ("bert", "refs/pr/1")),
        ("bert@", ("bert", None)),
    ],
)
def test_split_revision(name, parts):
    assert tf_hub.split_revision(name) == parts


class TestCommit:
    def test_main_is_the_default(self, hub, commit):
        assert tf_hub.commit_of("owner/bert") == tf_hub.commit_of("owner/bert", "main") == commit

    def test_tag_with_a_slash(self, hub, commit):
        hub.tags["owner/bert"] = {"releases/1"}
        assert tf_hub.commit_of("owner/bert", "releases/1") == commit

    def test_dataset(self, hub, commit):
        expected = hub.add("owner/reviews", {"train.csv": b"text,label\n"}, kind="datasets")
        assert tf_hub.commit_of("owner/reviews", repo_type="dataset") == expected

    def test_renamed_repository(self, hub, commit):
        hub.renamed["bert"] = "owner/bert"
        assert tf_hub.commit_of("bert") == commit

    def test_no_such_model(self, commit):
        expected = (
            "no such model on the hub, expected one on .*; a private one needs `hf auth login` or HF_TOKEN, got owner/x"
        )
        with pytest.raises(tf_hub.NotOnHub, match=expected):
            tf_hub.commit_of("owner/x")

    def test_no_such_dataset(self, commit):
        with pytest.raises(tf_hub.NotOnHub, match="no such dataset on the hub, .* got owner/bert"):
            tf_hub.commit_of("owner/bert", repo_type="dataset")

    def test_gated(self, hub, commit):
        hub.private["owner/bert"] = "GatedRepo"
        expected = (
            "the model is gated, in owner/bert, expected access granted on its page .* then `hf auth login` or HF_TOKEN"
        )
        with pytest.raises(InputError, match=expected):
            tf_hub.commit_of("owner/bert")

    def test_private_with_a_token(self, hub, commit, monkeypatch):
        hub.private["owner/bert"] = "RepoNotFound"
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        assert tf_hub.commit_of("owner/bert") == commit

    @pytest.mark.parametrize("revision", ["v9", "0" * 40, "refs/pr/7"])
    def test_no_such_revision(self, commit, revision):
        with pytest.raises(InputError, match=f"^no such revision, in owner/bert, expected .*, got {revision}$"):
            tf_hub.commit_of("owner/bert", revision)

    @pytest.mark.parametrize("name", ["owner/be rt", "owner/bert--x", "owner/bert.git"])
    def test_no_name(self, commit, name):
        with pytest.raises(InputError, match="not a name on the hub, in a model, expected OWNER/NAME, got"):
            tf_hub.commit_of(name)

    @pytest.mark.parametrize("status", [429, 503])
    def test_hub_says_not_now(self, hub, commit, status):
        hub.down = status
        with pytest.raises(tf_hub.HubUnreachable, match=f"the model is not in the cache, .* got status {status}"):
            tf_hub.commit_of("owner/bert")

    def test_unreachable_is_known_in_one_try(self, commit, unreachable, monkeypatch):
        import huggingface_hub.file_download

        unreachable()
        monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", pytest.fail)
        expected = (
            r"the model is not in the cache, in owner/bert \(.*\), expected a connection to 127.*, got ConnectError"
        )
        with pytest.raises(tf_hub.HubUnreachable, match=expected):
            tf_hub.commit_of("owner/bert")

    def test_silent_hub_is_known_after_one_timeout(self, commit, monkeypatch):
        import huggingface_hub.hf_api

        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
            with pytest.raises(tf_hub.HubUnreachable, match="got ReadTimeout"):
                tf_hub.commit_of("owner/bert")

    def test_unreachable_is_what_it_was(self, commit, unreachable, capsys):
        tf_hub.commit_of("owner/bert")
        unreachable()
        assert tf_hub.commit_of("owner/bert") == commit
        assert f"owner/bert@{commit[:7]} is taken as the cache knows it" in capsys.readouterr().err

    def test_offline_is_what_it_was(self, commit, offline, capsys):
        tf_hub.commit_of("owner/bert")
        offline()
        assert tf_hub.commit_of("owner/bert") == commit
        assert capsys.readouterr().err == ""

    def test_offline_without_a_cache(self, commit, offline):
        offline()
        with pytest.raises(
            tf_hub.HubUnreachable, match="not in the cache, in owner/bert@v1 .* got HF_HUB_OFFLINE is set"
        ):
            tf_hub.commit_of("owner/bert", "v1")

    def test_offline_commit_in_the_cache(self, commit, offline):
        tf_hub.snapshot("owner/bert", commit)
        offline()
        assert tf_hub.commit_of("owner/bert", commit) == commit

    def test_moved_branch_is_noted(self, hub, commit, offline):
        tf_hub.commit_of("owner/bert")
        moved = hub.add("owner/bert", {"config.json": b'{"new": 1}'})
        assert tf_hub.commit_of("owner/bert") == moved != commit
        offline()
        assert tf_hub.commit_of("owner/bert") == moved


class TestSnapshot:
    def test_only_what_is_needed_is_fetched(self, hub, commit):
        folder = tf_hub.snapshot("owner/bert")
        assert files(folder) == hub.fetched() == sorted(CHECKPOINT)
        assert {name: (folder / name).read_bytes() for name in CHECKPOINT} == CHECKPOINT

    def test_it_lies_where_others_look(self, commit, empty_hub_cache):
        folder = tf_hub.snapshot("owner/bert")
        assert folder == empty_hub_cache / "models--owner--bert" / "snapshots" / commit
        assert (empty_hub_cache / "models--owner--bert" / "refs" / "main").read_text() == commit

    def test_what_is_fetched_is_said_first(self, hub, commit, capfd, empty_hub_cache):
        tf_hub.snapshot("owner/bert")
        host = hub.url.removeprefix("http://")
        expected = f"fetching owner/bert@{commit[:7]} from {host}: 4 files, 731 bytes, into {empty_hub_cache}\n"
        assert capfd.readouterr().err.startswith(expected)

    def test_second_time_says_and_fetches_nothing(self, hub, commit, capfd):
        tf_hub.snapshot("owner/bert")
        capfd.readouterr()
        hub.requests.clear()
        tf_hub.snapshot("owner/bert")
        assert hub.requests == [("GET", "/api/models/owner/bert")]
        assert capfd.readouterr().err == ""

    def test_whole_commit_in_the_cache_asks_nobody(self, hub, commit):
        folder = tf_hub.snapshot("owner/bert", commit)
        hub.requests.clear()
        assert tf_hub.snapshot("owner/bert", commit) == folder
        assert hub.requests == []

    def test_only_the_changed_file_is_fetched(self, hub, commit, capfd):
        tf_hub.snapshot("owner/bert")
        hub.requests.clear()
        capfd.readouterr()
        moved = hub.add("owner/bert", {"config.json": b'{"new": 1}'})
        folder = tf_hub.snapshot("owner/bert")
        assert hub.fetched() == ["config.json"]
        assert files(folder) == sorted(CHECKPOINT)
        assert f"fetching owner/bert@{moved[:7]}" in capfd.readouterr().err

    def test_single_name_that_was_renamed(self, hub, commit):
        hub.renamed["bert"] = "owner/bert"
        assert files(tf_hub.snapshot("bert")) == sorted(CHECKPOINT)

    def test_shards(self, hub, empty_hub_cache):
        shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode()
        small = {name: CHECKPOINT[name] for name in ("config.json", "vocab.txt")}
        weights = {"model.safetensors.index.json": index, shards[0]: b"1", shards[1]: b"2"}
        hub.add("owner/large", small | weights | {"model.fp16.safetensors": b"3"})
        assert files(tf_hub.snapshot("owner/large")) == sorted(small | weights)

    def test_one_file_is_better_than_shards(self, hub, empty_hub_cache):
        shards = {"model.safetensors.index.json": b"{}", "model-00001-of-00001.safetensors": b"1"}
        hub.add("owner/both", CHECKPOINT | shards)
        assert files(tf_hub.snapshot("owner/both")) == sorted(CHECKPOINT)

    def test_without_safetensors_the_weights_of_the_tf_classes(self, hub, empty_hub_cache):
        small = {name: CHECKPOINT[name] for name in ("config.json", "vocab.txt")}
        hub.add("owner/older", small | OTHERS)
        assert files(tf_hub.snapshot("owner/older")) == sorted([*small, "tf_model.h5"])

    def test_a_pickle_comes_last(self, hub, empty_hub_cache, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        small = {name: CHECKPOINT[name] for name in ("config.json", "vocab.txt")}
        hub.add("owner/pickled", small | {"pytorch_model.bin": b"pickle"})
        assert files(tf_hub.snapshot("owner/pickled")) == sorted([*small, "pytorch_model.bin"])

    def test_pytorchs_weights_on_request(self, hub, empty_hub_cache):
        hub.add("owner/of-two-kinds", {"config.json": b"{}", "tokenizer.json": b"{}"} | OTHERS)
        folder = tf_hub.snapshot("owner/of-two-kinds", from_pt=True)
        assert "pytorch_model.bin" in files(folder)
        assert "tf_model.h5" not in files(folder)

    def test_a_pickle_is_not_fetched_where_nothing_can_read_it(self, hub, empty_hub_cache, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        hub.add("owner/pickled", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
        expected = "only read with PyTorch, which is not installed, in owner/pickled@.{7}, .*, got pytorch_model.bin$"
        with pytest.raises(InputError, match=expected):
            tf_hub.snapshot("owner/pickled")
        assert hub.fetched() == []

    def test_no_weights_of_bert(self, hub, empty_hub_cache):
        hub.add("owner/other", {"config.json": b"{}", "onnx/model.onnx": b"onnx"})
        expected = (
            "no weights of BERT in this repository, in owner/other@.{7}, "
            "expected model.safetensors or tf_model.h5 or pytorch_model.bin, got onnx/model.onnx$"
        )
        with pytest.raises(InputError, match=expected):
            tf_hub.snapshot("owner/other")

    def test_no_config(self, hub, empty_hub_cache):
        hub.add("owner/bare", {"model.safetensors": WEIGHTS})
        with pytest.raises(InputError, match="no config.json in this repository, in owner/bare@.{7}, expected a BERT"):
            tf_hub.snapshot("owner/bare")

    def test_broken_download(self, hub, commit, impatient, empty_hub_cache):
        hub.truncate["model.safetensors"] = 100
        expected = (
            f"the download broke off; try again, in owner/bert@{commit[:7]} model.safetensors, expected 700 bytes, "
            "got RemoteProtocolError: .*received 100 bytes"
        )
        with pytest.raises(InputError, match=expected):
            tf_hub.snapshot("owner/bert")
        assert not [name for name in files(empty_hub_cache) if name.endswith((".incomplete", "model.safetensors"))]
        hub.reset()
        assert (tf_hub.snapshot("owner/bert") / "model.safetensors").read_bytes() == WEIGHTS
        assert hub.fetched() == ["model.safetensors"]

    def test_garbled_weights(self, hub, commit):
        hub.garble.add("model.safetensors")
        expected = (
            "a fetched file is damaged; try again, in owner/bert@.{7} model.safetensors, expected sha256 .{64}, got"
        )
        with pytest.raises(InputError, match=expected):
            tf_hub.snapshot("owner/bert")
        hub.reset()
        assert (tf_hub.snapshot("owner/bert") / "model.safetensors").read_bytes() == WEIGHTS

    @pytest.mark.parametrize(
        "error", [RuntimeError("Data processing error"), OSError("Consistency check failed: file should be of size 9")]
    )
    def test_other_words_for_a_broken_download(self, commit, monkeypatch, error):
        import huggingface_hub

        def broken(*_, **__):
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
        where = f"owner/bert@{commit[:7]} config.json"
        expected = f"the download broke off; try again, in {where}, expected 2 bytes, got .*{error}"
        with pytest.raises(InputError, match=expected):
            tf_hub.snapshot("owner/bert")

    def test_full_disk_is_not_the_hub_s_fault(self, commit, monkeypatch):
        import huggingface_hub

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
        with pytest.raises(OSError, match="No space left on device"):
            tf_hub.snapshot("owner/bert")

    def test_offline(self, commit, offline, capfd):
        folder = tf_hub.snapshot("owner/bert")
        offline()
        capfd.readouterr()
        assert tf_hub.snapshot("owner/bert") == folder
        assert capfd.readouterr().err == ""

    def test_unreachable(self, commit, unreachable, capfd):
        folder = tf_hub.snapshot("owner/bert")
        unreachable()
        capfd.readouterr()
        assert tf_hub.snapshot("owner/bert") == folder
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("the hub cannot be reached, in owner/bert, expected a connection to 127.0.0.1")
        assert lines[0].endswith(f"owner/bert@{commit[:7]} is taken as the cache knows it")

    def test_offline_with_half_a_cache(self, hub, commit, offline, impatient):
        hub.truncate["model.safetensors"] = 100
        with pytest.raises(InputError, match="broke off"):
            tf_hub.snapshot("owner/bert")
        offline()
        expected = "not in the cache: model.safetensors, in owner/bert@.{7} .*, got HF_HUB_OFFLINE is set"
        for revision in (None, "main", commit):
            with pytest.raises(tf_hub.HubUnreachable, match=expected):
                tf_hub.snapshot("owner/bert", revision)

    def test_offline_without_one_shard(self, hub, empty_hub_cache, offline):
        shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode()
        weights = {"model.safetensors.index.json": index, shards[0]: b"1", shards[1]: b"2"}
        hub.add("owner/large", {"config.json": b"{}", "tokenizer.json": b"{}"} | weights)
        folder = tf_hub.snapshot("owner/large")
        (folder / shards[1]).unlink()
        offline()
        with pytest.raises(tf_hub.HubUnreachable, match=f"not in the cache: {shards[1]}, in"):
            tf_hub.snapshot("owner/large")


class TestNamedFaults:
    def test_others_pass(self):
        with pytest.raises(KeyError), tf_hub.named_faults("owner/reviews", "dataset"):
            raise KeyError("x")

    def test_causes_are_looked_at(self):
        error = ValueError("could not build")
        error.__cause__ = ConnectionError("gone")
        gone = pytest.raises(tf_hub.HubUnreachable, match="got ConnectionError: gone")
        with gone, tf_hub.named_faults("owner/reviews", "dataset"):
            raise error

    def test_datasets(self, hub, empty_hub_cache, tmp_path):
        import datasets

        unknown = pytest.raises(tf_hub.NotOnHub, match="no such dataset on the hub, .* 'owner/nothing'")
        with unknown, tf_hub.named_faults("owner/nothing", "dataset"):
            datasets.load_dataset("owner/nothing", cache_dir=tmp_path / "datasets")


class TestProcess:
    """In a process of its own, as a user runs it: only the environment says where the hub is."""

    def run(self, environment):
        code = "from tf_finetune import hub; print(hub.snapshot('owner/bert'))"
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    def test_environment(self, commit, hub_environment):
        expected = os.path.join(hub_environment["HF_HOME"], "hub", "models--owner--bert", "snapshots", commit)
        assert self.run(hub_environment).stdout.strip() == expected
        result = self.run(hub_environment | {"HF_HUB_OFFLINE": "1"})
        assert (result.stdout.strip(), result.stderr) == (expected, "")

    def test_importing_it_does_not_import_the_library(self):
        code = "import sys, tf_finetune.hub, tf_finetune.pretrained; print('huggingface_hub' in sys.modules)"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == "False"
