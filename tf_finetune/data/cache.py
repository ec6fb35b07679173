"""Folders of files made from others, by key: whole and unaltered, or made anew. Never trusted on their name alone.

A folder is filled aside, synced, given a manifest of sizes and checksums, and only then renamed to its key. Each
use reads every file once against the manifest (XXH3, about 9 GB/s): that finds a cut or flipped file, at a tenth
of what hashing the source for the key costs.
"""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from tf_finetune import json_files, packages, runtime
from tf_finetune.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: what a killed process left behind stays
    fcntl = None

MANIFEST = "manifest.json"
# Other processes may publish and replace the same key while this one does.
ATTEMPTS = 5

# Fills a folder and returns the facts to be kept with it, ready for JSON.
Build = Callable[[Path], dict[str, Any]]

# Takes the cache's place for this process where the cache cannot be written; removed at exit.
_temporary: Path | None = None


class Unwritable(Exception):
    """The cache's disk is read-only, full, or not ours."""


def folder() -> Path:
    """Where the folders are: `data` beside the packages, under $TF_FINETUNE_CACHE or the user's cache folder."""
    return packages.cache_folder() / "data"


def key_of(**facts: Any) -> str:
    """A key that is another where any fact (JSON-ready) is."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]


def kept(key: str, build: Build, *, what: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a key and its facts, built unless it is there and whole.

    Where the cache cannot be written, a temporary folder takes its place until the process ends, with a warning.

    Args:
        key: stands for all that the content depends on.
        build: fills the folder it is given; its own writing is done under `writing`.
        what: what is kept, for messages.

    Raises:
        InputError: neither the cache nor a temporary folder can be written.
    """
    roots = [folder(), *([_temporary] if _temporary else [])]
    for root in roots:
        if (root / key).is_dir():
            facts = _facts(root / key)
            if facts is not None:
                return root / key, facts
            runtime.warn(f"{what}: the copy in {root / key} is damaged and is made again")
    try:
        return _built(roots[-1], key, build)
    except Unwritable as error:
        if _temporary:
            raise InputError("no room to keep the data", where=roots[-1], got=str(error)) from error
        root = _temporary_folder()
        runtime.warn(f"the data cache {roots[-1]} cannot be written ({error}); this run uses {root} and removes it")
    try:
        return _built(root, key, build)
    except Unwritable as error:
        raise InputError("no room to keep the data", where=root, got=str(error)) from error


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Around writes to the cache: tells its faults from those of the source that is read meanwhile."""
    try:
        yield
    except OSError as error:
        raise Unwritable(error.strerror or str(error)) from error


def _temporary_folder() -> Path:
    global _temporary
    _temporary = Path(tempfile.mkdtemp(prefix="tf_finetune-data-"))
    atexit.register(shutil.rmtree, _temporary, ignore_errors=True)
    return _temporary


def _built(root: Path, key: str, build: Build) -> tuple[Path, dict[str, Any]]:
    with writing():
        root.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root)
    with _aside(root, key) as aside:
        facts = build(aside)
        with writing():
            _seal(aside, facts)
            facts = _publish(aside, root / key, facts)
    return root / key, facts


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _aside(root: Path, key: str) -> Iterator[Path]:
    """A new folder, locked while this process lives, and gone afterwards unless it was renamed."""
    while True:
        with writing():
            aside = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=root))
        with _locked(aside, wait=True):
            if not aside.is_dir():  # another process took it for a leftover before it was locked
                continue
            try:
                aside.chmod(0o777 & ~_umask())
                yield aside
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            return


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether a folder could be locked; the system unlocks it when the process ends, however it ends."""
    descriptor, locked = None, False
    with contextlib.suppress(OSError):  # somebody has it, or the file system knows no locks
        if fcntl is not None:
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
    try:
        yield locked
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _remove_leftovers(root: Path) -> None:
    """Removes what killed processes were filling; what a living one fills is locked."""
    for path in root.glob(".*-*"):
        with _locked(path) as locked:
            if locked:
                shutil.rmtree(path, ignore_errors=True)


def _seal(aside: Path, facts: dict[str, Any]) -> None:
    """Writes the manifest, after everything else has reached the disk."""
    files = {}
    for path in sorted(aside.iterdir()):
        _sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "xxh3": _checksum(path)}
    json_files.write(aside / MANIFEST, {"facts": facts, "files": files, "xxh3": _digest([facts, files])})
    _sync(aside / MANIFEST)


def _publish(aside: Path, target: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Renames, unless another process was first and its folder is whole; returns the facts of the one that counts."""
    for attempt in range(ATTEMPTS):
        try:
            os.rename(aside, target)
        except OSError:
            if not target.is_dir() or attempt == ATTEMPTS - 1:
                raise
            if (theirs := _facts(target)) is not None:
                return theirs
            with _aside(target.parent, target.name) as doomed, contextlib.suppress(FileNotFoundError):
                os.rename(target, doomed / target.name)
        else:
            _sync(target.parent)
            break
    return facts


def _facts(path: Path) -> dict[str, Any] | None:
    """The facts kept with a folder whose every file is what was written; None where one is not."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        facts, files = manifest["facts"], manifest["files"]
        if manifest["xxh3"] != _digest([facts, files]):
            return None
        for name, entry in files.items():
            file = path / name
            if file.stat().st_size != entry["bytes"] or _checksum(file) != entry["xxh3"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _digest(content: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
