"""Which path in a working directory belongs to whom, and how files come into it: whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_finetune import json_files
from tf_finetune.errors import InputError

MANIFEST = "manifest.json"


class Workdir:
    """The paths of one run; see the README for what each holds."""

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best.json"
        self.evaluation = self.path / "evaluation.json"
        self.export = self.path / "export"

    def check_free(self, config: dict[str, dict[str, Any]], *, restart: bool) -> None:
        """Refuses a folder that cannot be made, holds a run (unless it is to be restarted) or somebody's config.json.

        Args:
            config: of the run that is to begin, compared with that of a run already there.
            restart: whether such a run may be replaced.

        Raises:
            InputError: as said.
        """
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        try:
            with tempfile.TemporaryDirectory(dir=there):
                pass
        except OSError as error:
            got = f"{there}: {error.strerror}"
            raise InputError("cannot write the working directory", where=self.path, got=got) from None
        if self.config.exists() and not self._is_ours():
            raise InputError(
                "the working directory holds a config.json that is not a run's",
                where=self.path,
                expected="a new or an empty folder",
            )
        if not restart and (self.config.exists() or self.checkpoints.exists()):
            raise InputError(
                f"the working directory already holds a run{self._difference(config)}",
                where=self.path,
                expected="a new --workdir, or --restart to remove that run and start over",
            )

    def _difference(self, config: dict[str, dict[str, Any]]) -> str:
        """What another config of the run already there says otherwise: its first field, and how many more."""
        there = json.loads(self.config.read_text(encoding="utf-8")) if self.config.exists() else config
        changes = [
            f"{section}.{name} is {there[section].get(name)} there and {value} here"
            for section, values in config.items()
            for name, value in values.items()
            if section in there and not is_same(there[section].get(name), value)
        ]
        more = f" and {len(changes) - 1} more" if changes[1:] else ""
        return f" of another config ({changes[0]}{more})" if changes else ""

    def _is_ours(self) -> bool:
        try:
            return {"model", "data", "train"} <= set(json.loads(self.config.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            return False

    def clear(self) -> None:
        """Removes an earlier run's files, and nothing else that may lie in the folder. Exports stay."""
        for folder in (self.checkpoints, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.config, self.metrics, self.best, self.evaluation):
            path.unlink(missing_ok=True)

    def create(self) -> None:
        """Makes the folder and proves that it can be written.

        Raises:
            InputError: it cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError("cannot write the working directory", where=self.path, got=error.strerror) from None

    def best_checkpoint(self) -> Path:
        """The folder of the checkpoint that did best in validation, its files checked against the manifest.

        Raises:
            InputError: there is none, or a file is not what was written.
        """
        if not self.best.is_file():
            raise InputError("no trained model", where=self.path, expected="a workdir that `tf-finetune train` filled")
        try:
            name = json.loads(self.best.read_text(encoding="utf-8"))["checkpoint"]
        except (ValueError, KeyError, TypeError):
            raise InputError("unreadable file", where=self.best, expected="the name of a checkpoint") from None
        folder = self.checkpoints / name
        check_manifest(folder)
        return folder


def is_same(kept: Any, given: Any) -> bool:
    """Whether a run's value is the one given: a run keeps a path absolute and a hub name with its commit."""
    if isinstance(kept, str) and isinstance(given, str):
        return kept == given or kept.startswith(f"{given}@") or kept == str(Path(given).expanduser().absolute())
    return kept == given


@contextlib.contextmanager
def published_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, renamed to `target` at the end; when the block fails, nothing is left of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield aside
        aside.chmod(0o755)
        os.rename(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def write_manifest(folder: Path, **facts: str) -> None:
    """Records size and sha256 of every file in the folder; written last, it says that all the others are whole.

    Args:
        folder: its files are whole.
        **facts: what else the manifest shall say, such as `base`, the checkpoint training started from.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    entries = {str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in files}
    json_files.write(folder / MANIFEST, {**facts, "files": entries})


def check_manifest(folder: Path) -> None:
    """Compares every file with the manifest.

    Raises:
        InputError: a file is missing or altered.
    """
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("checkpoint is incomplete", where=folder, expected=f"a readable {MANIFEST}") from None
    for name, entry in entries.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"] or _sha256(path) != entry["sha256"]:
            raise InputError(
                "a checkpoint file is missing or altered",
                where=path,
                expected=f"{entry['bytes']} bytes with sha256 {entry['sha256'][:12]}...",
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
