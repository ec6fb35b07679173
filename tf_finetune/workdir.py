"""Which path in a working directory belongs to whom, and how files come into it: whole or not at all."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from tf_finetune import json_files, runtime
from tf_finetune.errors import InputError, RunError

MANIFEST = "manifest.json"
LOCK, EXPORT_LOCK = ".lock", ".export.lock"
# The files of a checkpoint that only training reads; the others are a Hugging Face model folder.
STATE, STATE_TENSORS = TRAINING_STATE = ("training_state.json", "training_state.safetensors")

# Beside where a folder was, the folder that it is in while another takes its place, or until it is removed.
REPLACED, REMOVED = ".replaced-", ".removed-"


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
        self.report = self.path / "report.html"
        self.report_facts = self.path / "report.json"
        self.model_card = self.path / "model_card.md"
        self.label_errors = self.path / "label_errors.csv"
        self.export = self.path / "export"

    @property
    def of_best(self) -> tuple[Path, ...]:
        """What commands said of the best checkpoint; it goes when another one is."""
        return self.evaluation, self.report, self.report_facts, self.model_card, self.label_errors

    @contextlib.contextmanager
    def locked(self, lock_name: str = LOCK, *, what: str = "run") -> Iterator[None]:
        """Holds the folder for one run, and makes it where it is not there. Nothing is left of a folder made in vain.

        The lock is the operating system's: it ends with the process that holds it, however that ends.

        Args:
            lock_name: a lock of another name is for others.
            what: holds it, to say so to the next one.

        Raises:
            InputError: another run holds it, or it cannot be made or written.
        """
        made = [folder for folder in (self.path, *self.path.absolute().parents) if not folder.exists()]
        lock = filelock.FileLock(self.path / lock_name)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(
                f"another {what} is at work in the working directory",
                where=self.path,
                expected=f"another --workdir, or that {what} ended",
            ) from None
        except NotImplementedError:
            runtime.warn(f"this file system has no locks: let no other run use {self.path} meanwhile")
        except OSError as error:
            _remove_empty(made)
            got = "a file" if isinstance(error, FileExistsError) else error.strerror
            raise InputError("cannot write the working directory", where=self.path, got=got) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if [path.name for path in self.path.iterdir()] == [lock_name]:
                    (self.path / lock_name).unlink()
            lock.release()
            _remove_empty(made)

    def check_ours(self) -> None:
        """Refuses a folder with files under the names of a run's that no run has written.

        Raises:
            InputError: as said.
        """
        ours = (self.config, self.checkpoints, self.metrics, self.tensorboard, self.best, *self.of_best)
        there = [path.name for path in ours if path.exists()]
        if there and not self._is_ours():
            raise InputError(
                f"the working directory holds a {there[0]} that is not a run's",
                where=self.path,
                expected="a new or an empty folder",
            )

    def _is_ours(self) -> bool:
        """Whether there is a run's config.json or, should that be damaged, a checkpoint."""
        if any((folder / MANIFEST).is_file() for folder in checkpoint_folders(self.checkpoints)):
            return True
        try:
            return {"model", "data", "train"} <= set(json.loads(self.config.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return False

    def remove_leftovers(self) -> None:
        """Takes back what a run that was killed had not finished writing, and finishes what it was removing."""
        for folder in self.checkpoints.glob(f"{REPLACED}*/*"):
            if not (self.checkpoints / folder.name).exists():
                os.rename(folder, self.checkpoints / folder.name)
        asides = (".step_*", f"{REPLACED}*", f"{REMOVED}*")
        for folder in (*self.path.glob(f"{REMOVED}*"), *(f for one in asides for f in self.checkpoints.glob(one))):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.config, self.best):
            for leftover in self.path.glob(f".{path.name}.*"):
                leftover.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes an earlier run's files, and nothing else that may lie in the folder. Exports stay.

        config.json goes last: without it, what is left of a run that was killed here would be a stranger's.
        """
        for path in (self.best, *self.of_best, self.metrics):
            path.unlink(missing_ok=True)
        for folder in (*checkpoint_folders(self.checkpoints), self.tensorboard):
            if folder.exists():
                remove_folder(folder)
        _remove_empty([self.checkpoints])
        self.config.unlink(missing_ok=True)

    def publish_config(self, config: dict[str, Any]) -> None:
        """Writes config.json, if it does not say the same already."""
        if not _says(self.config, config):
            json_files.write(self.config, config)

    def publish_best(self, best: dict[str, Any]) -> None:
        """Writes best.json; what was said of another checkpoint goes with it."""
        if not _says(self.best, best):
            for path in self.of_best:
                path.unlink(missing_ok=True)
            json_files.write(self.best, best)

    def best_checkpoint(self) -> Path:
        """The folder of the checkpoint that did best in validation, its files checked against the manifest.

        Raises:
            InputError: there is none, or a file is not what was written.
        """
        if not self.best.is_file():
            raise InputError("no trained model", where=self.path, expected="a workdir that `tf-finetune train` filled")
        try:
            folder = self.checkpoints / json.loads(self.best.read_text(encoding="utf-8"))["checkpoint"]
        except (ValueError, KeyError, TypeError):
            expected = "the name of a checkpoint; the run's train command writes it again"
            raise InputError("unreadable file", where=self.best, expected=expected) from None
        check_manifest(folder, without=TRAINING_STATE)
        return folder


def checkpoint_folders(checkpoints: Path) -> list[Path]:
    """Those that a run has published, such as `step_00000528`, the earliest first."""
    found = (path for path in checkpoints.glob("step_*") if re.fullmatch(r"step_\d{8,}", path.name) and path.is_dir())
    return sorted(found, key=lambda folder: int(folder.name.removeprefix("step_")))


@contextlib.contextmanager
def writing(what: object) -> Iterator[None]:
    """Raises RunError, with the name of what cannot be written, in the place of the operating system's error."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what} cannot be written: {error.strerror or error}") from error


def _says(path: Path, content: dict[str, Any]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8")) == content
    return False


def _remove_empty(folders: Sequence[Path]) -> None:
    """Of nested folders, the innermost first, those that hold nothing."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def published_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, on the disk and then renamed to `target` at the end; when the block fails, nothing is left.

    Args:
        target: what it will be.
        replace: whether such a folder may be there already; it is removed after the other has come. A process that is
            killed between leaves it to `remove_leftovers`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield aside
        for path in (*aside.rglob("*"), aside):
            path.chmod(0o755 if path.is_dir() else 0o644)  # for others, too, whichever library wrote it
            _sync(path)
        replaced = _moved_aside(target, REPLACED) if replace and target.exists() else None
        try:
            os.rename(aside, target)
        except BaseException:
            if replaced:
                os.rename(replaced / target.name, target)
            raise
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if replaced:
        shutil.rmtree(replaced)


def remove_folder(folder: Path) -> None:
    """Removes a folder that is never seen half removed: it loses its name first."""
    shutil.rmtree(_moved_aside(folder, REMOVED))


def _moved_aside(folder: Path, prefix: str) -> Path:
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    os.rename(folder, aside / folder.name)
    return aside


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_manifest(folder: Path, **facts: Any) -> None:
    """Records size and sha256 of every file in the folder; written last, it says that all the others are whole.

    Args:
        folder: its files are whole.
        **facts: what else the manifest shall say, such as `base`, the checkpoint training started from.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    entries = {str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in files}
    json_files.write(folder / MANIFEST, {**facts, "files": entries})


def check_manifest(folder: Path, *, without: Collection[str] = (), what: str = "a checkpoint") -> dict[str, Any]:
    """Compares every file with the manifest, but for those whose names are in `without`; `what` it is, for
    the message.

    Returns:
        The manifest.

    Raises:
        InputError: a file is missing or altered.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if name in without:
            continue
        if not _is_as_written(path, entry):
            raise InputError(
                f"{what} file is missing or altered",
                where=path,
                expected=f"{entry['bytes']} bytes with sha256 {entry['sha256'][:12]}...",
            )
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The facts, and under "files" the size and sha256 of each.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {
            name: {"bytes": entry["bytes"], "sha256": str(entry["sha256"])} for name, entry in manifest["files"].items()
        }
        return {**manifest, "files": files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError("checkpoint is incomplete", where=folder, expected=f"a readable {MANIFEST}") from None


def _is_as_written(path: Path, entry: dict[str, Any]) -> bool:
    try:
        return path.is_file() and path.stat().st_size == entry["bytes"] and _sha256(path) == entry["sha256"]
    except OSError:  # a disk that cannot give it back
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
