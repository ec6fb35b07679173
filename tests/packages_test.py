import hashlib
import subprocess
from pathlib import Path

import pytest

from tf_finetune import packages
from tf_finetune.errors import InputError

CONTENT = b"the bytes of a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FakePip:
    """Stands in for subprocess.run: writes the wheel where pip would, and remembers what it was asked."""

    def __init__(self, *, returncode=0, stderr="", meanwhile=None):
        self.returncode, self.stderr, self.meanwhile = returncode, stderr, meanwhile
        self.commands, self.requirements = [], []

    def __call__(self, command, **_):
        self.commands.append(command)
        self.requirements.append(Path(command[command.index("--requirement") + 1]).read_text())
        if self.returncode == 0:
            folder = Path(command[command.index("--dest") + 1])
            folder.mkdir()
            (folder / "name-1.0-py3-none-any.whl").write_bytes(CONTENT)
        if self.meanwhile:
            self.meanwhile()
        return subprocess.CompletedProcess(command, self.returncode, stdout="", stderr=self.stderr)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_FINETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pip(cache, monkeypatch):
    fake = FakePip()
    monkeypatch.setattr(packages.subprocess, "run", fake)
    return fake


class TestCacheFolder:
    def test_own_variable_comes_first(self, monkeypatch):
        monkeypatch.setenv("TF_FINETUNE_CACHE", "/a")
        monkeypatch.setenv("XDG_CACHE_HOME", "/b")
        assert packages.cache_folder() == Path("/a")

    def test_user_cache_folder(self, monkeypatch):
        monkeypatch.delenv("TF_FINETUNE_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", "/b")
        assert packages.cache_folder() == Path("/b/tf_finetune")

    @pytest.mark.parametrize("value", [None, ""])
    def test_home(self, monkeypatch, value):
        monkeypatch.delenv("TF_FINETUNE_CACHE", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("HOME", "/h")
        assert packages.cache_folder() == Path("/h/.cache/tf_finetune")


class TestFetch:
    def test_file_comes_from_pip_into_the_cache(self, pip, cache):
        path = packages.fetch("name==1.0", sha256=SHA256)
        assert path == cache / "packages" / SHA256 / "name-1.0-py3-none-any.whl"
        assert path.read_bytes() == CONTENT

    def test_nothing_else_is_left_in_the_cache(self, pip, cache):
        packages.fetch("name==1.0", sha256=SHA256)
        assert [path.name for path in (cache / "packages").iterdir()] == [SHA256]

    def test_pip_checks_the_hash_and_takes_no_dependencies(self, pip):
        packages.fetch("name==1.0", sha256=SHA256)
        assert pip.requirements == [f"name==1.0 --hash=sha256:{SHA256}\n"]
        assert {"--no-deps", "--require-hashes"} <= set(pip.commands[0])

    @pytest.mark.parametrize(
        ("source_archive", "option"), [(False, "--only-binary"), (True, "--no-binary")], ids=["wheel", "source"]
    )
    def test_kind_of_file(self, pip, source_archive, option):
        packages.fetch("name==1.0", sha256=SHA256, source_archive=source_archive)
        assert option in pip.commands[0]

    def test_known_package_needs_no_hash(self, pip, monkeypatch):
        monkeypatch.setitem(packages.KNOWN_SHA256, "known==2", SHA256)
        assert packages.fetch("known==2").read_bytes() == CONTENT

    def test_second_time_comes_from_the_cache(self, pip):
        first = packages.fetch("name==1.0", sha256=SHA256)
        assert packages.fetch("name==1.0", sha256=SHA256) == first
        assert len(pip.commands) == 1

    def test_announces_the_download_only(self, pip, capsys):
        packages.fetch("name==1.0", sha256=SHA256)
        assert "fetching name==1.0 from the package index" in capsys.readouterr().err
        packages.fetch("name==1.0", sha256=SHA256)
        assert capsys.readouterr().err == ""

    def test_corrupted_file_is_fetched_again(self, pip):
        path = packages.fetch("name==1.0", sha256=SHA256)
        path.write_bytes(CONTENT[:-1] + b"?")
        assert packages.fetch("name==1.0", sha256=SHA256).read_bytes() == CONTENT
        assert len(pip.commands) == 2

    def test_emptied_cache_folder_is_fetched_again(self, pip):
        packages.fetch("name==1.0", sha256=SHA256).unlink()
        assert packages.fetch("name==1.0", sha256=SHA256).read_bytes() == CONTENT

    def test_another_process_was_faster(self, pip, cache):
        kept = cache / "packages" / SHA256

        def meanwhile():
            kept.mkdir()
            (kept / "name-1.0-py3-none-any.whl").write_bytes(CONTENT)

        pip.meanwhile = meanwhile
        assert packages.fetch("name==1.0", sha256=SHA256).read_bytes() == CONTENT

    @pytest.mark.parametrize(
        "requirement", ["name", "name>=1", "name==", "==1", "name==1 --pre", "-r==x;y", "a/b==1", ""]
    )
    def test_inexact_version(self, pip, requirement):
        with pytest.raises(InputError, match="not an exact package version, expected NAME==VERSION, got"):
            packages.fetch(requirement, sha256=SHA256)
        assert pip.commands == []

    def test_unknown_hash(self, pip):
        expected = r"a package needs its hash, in name==1\.0, expected pypi:NAME==VERSION/path#sha256=HEX"
        with pytest.raises(InputError, match=expected):
            packages.fetch("name==1.0")
        assert pip.commands == []

    @pytest.mark.parametrize(
        ("stderr", "got"),
        [
            (
                "WARNING: retrying\nERROR: first\nERROR: No matching distribution\nhint",
                "ERROR: No matching distribution",
            ),
            ("/usr/bin/python: No module named pip\n", "/usr/bin/python: No module named pip"),
            ("", "no message from pip"),
        ],
        ids=["errors", "other_lines", "silence"],
    )
    def test_pip_failure_becomes_one_line(self, cache, monkeypatch, stderr, got):
        monkeypatch.setattr(packages.subprocess, "run", FakePip(returncode=1, stderr=stderr))
        with pytest.raises(InputError) as caught:
            packages.fetch("name==1.0", sha256=SHA256)
        expected = "the package index within reach of pip"
        assert str(caught.value) == f"could not fetch a package, in name==1.0, expected {expected}, got {got}"
        assert list((cache / "packages").iterdir()) == []

    def test_failure_keeps_what_the_cache_holds_of_others(self, pip, cache, monkeypatch):
        path = packages.fetch("name==1.0", sha256=SHA256)
        monkeypatch.setattr(packages.subprocess, "run", FakePip(returncode=1))
        with pytest.raises(InputError):
            packages.fetch("other==1.0", sha256="0" * 64)
        assert path.is_file()
