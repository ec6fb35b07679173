"""The Hugging Face hub: what commit a name stands for, a checkpoint in its cache, and its faults in our words."""

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from tf_finetune import json_files
from tf_finetune.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo
    from huggingface_hub.hf_api import RepoSibling

RepoType = Literal["model", "dataset"]

# In the order in which `weights.stored_weights` looks for them; the first and the last may be in shards.
WEIGHTS = ("model.safetensors", "tf_model.h5", "pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json")
# What other libraries keep weights in; only named, to say why a repository is of no use here.
OTHER_WEIGHTS = (".bin", ".h5", ".msgpack", ".onnx", ".ckpt", ".pt", ".safetensors")

COMMIT = re.compile("[0-9a-f]{40}")
LOG_IN = "`hf auth login` or HF_TOKEN"
# Libraries whose errors mean that an address did not answer; their own classes differ between versions.
NETWORK_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp", "hf_xet"}
# Why the hub is not asked where the user does not want it to be.
OFFLINE = "HF_HUB_OFFLINE is set"


class NotOnHub(InputError):
    """The hub has no such repository, or shows it only to others."""


class HubUnreachable(InputError):
    """The hub cannot be reached, and the cache has not what is needed.

    Attributes:
        reason: why it cannot.
    """

    def __init__(self, what: str, *, where: str, reason: str):
        super().__init__(what, where=where, expected=f"a connection to {_host()}", got=reason)
        self.reason = reason


class DownloadBroken(InputError):
    """Some of a file came, and the rest did not."""


def is_to_be_tried_again(error: Exception) -> bool:
    """Whether the same words may be answered otherwise later, as nothing but the connection was at fault."""
    return isinstance(error, DownloadBroken) or (isinstance(error, HubUnreachable) and error.reason != OFFLINE)


def split_revision(name: str) -> tuple[str, str | None]:
    """`OWNER/NAME@REVISION` -> `OWNER/NAME` and the branch, tag or commit; None where there is none."""
    repo_id, _, revision = name.partition("@")
    return repo_id, revision or None


def commit_of(repo_id: str, revision: str | None = None, *, repo_type: RepoType = "model") -> str:
    """The commit that a revision stands for now, or stood for when the hub could last be reached.

    Args:
        repo_id: `OWNER/NAME`, or the single name of an old model.
        revision: a branch, tag or commit; None means main.
        repo_type: "model" or "dataset".

    Returns:
        40 hexadecimal digits.

    Raises:
        NotOnHub: no such repository.
        HubUnreachable: the hub cannot be reached and the cache does not know the revision.
        InputError: no such revision, or access refused.
    """
    if revision and COMMIT.fullmatch(revision) and _snapshot_folder(repo_id, revision, repo_type).is_dir():
        return revision
    try:
        commit = repository_info(repo_id, revision, repo_type=repo_type).sha
    except HubUnreachable as error:
        return _remembered(repo_id, revision, repo_type, error)
    _remember(repo_id, revision, repo_type, commit)
    return commit


def snapshot(repo_id: str, revision: str | None = None, *, from_pt: bool = False) -> Path:
    """The folder of a BERT checkpoint in the hub cache; what is missing there is fetched and checked.

    A whole commit that the cache has is returned without asking the hub.

    Args:
        repo_id: `OWNER/NAME`, or the single name of an old model.
        revision: a branch, tag or commit; None means main.
        from_pt: consider only the weights that PyTorch wrote.

    Raises:
        NotOnHub: no such repository.
        HubUnreachable: the hub cannot be reached and the cache lacks a file.
        InputError: no such revision, access refused, no weights that can be read, a broken download.
    """
    if revision and COMMIT.fullmatch(revision):
        folder = _snapshot_folder(repo_id, revision, "model")
        if not _missing(folder, from_pt):
            return folder
    try:
        info = repository_info(repo_id, revision, files_metadata=True)
    except HubUnreachable as error:
        commit = _remembered(repo_id, revision, "model", error)
        folder = _snapshot_folder(repo_id, commit, "model")
        if missing := _missing(folder, from_pt):
            what = f"not in the cache: {', '.join(missing)}"
            raise HubUnreachable(what, where=f"{_short(repo_id, commit)} ({folder})", reason=error.reason) from None
        return folder
    _remember(repo_id, revision, "model", info.sha)
    folder = _snapshot_folder(repo_id, info.sha, "model")
    _fetch(
        [file for file in _needed(repo_id, info, from_pt) if not (folder / file.rfilename).is_file()], repo_id, info.sha
    )
    return folder


def repository_info(
    repo_id: str, revision: str | None = None, *, repo_type: RepoType = "model", files_metadata: bool = False
) -> "ModelInfo":
    """The hub's description of a repository, asked once: a hub out of reach is known after one timeout.

    Raises:
        NotOnHub: no such repository.
        HubUnreachable: the hub cannot be reached.
        InputError: no such revision, or access refused.
    """
    from huggingface_hub import HfApi, constants

    with named_faults(repo_id, repo_type):
        return HfApi().repo_info(
            repo_id,
            revision=revision,
            repo_type=repo_type,
            files_metadata=files_metadata,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )


@contextlib.contextmanager
def named_faults(repo_id: str, repo_type: RepoType) -> Iterator[None]:
    """Turns what huggingface_hub, datasets and the network raise in the block into the errors of this module.

    Raises:
        NotOnHub: no such repository.
        HubUnreachable: no connection, no answer in time, or one that says "not now".
        InputError: no such revision or file, access refused, not a name.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        causes = list(_causes(error))
        named = next(filter(None, (_named(cause, repo_id, repo_type) for cause in causes)), None)
        if named is None and any(map(_is_network, causes)):
            named = HubUnreachable("the hub cannot be reached", where=repo_id, reason=_reason(causes))
        if named is None:
            raise
        raise named from None


def _named(error: BaseException, repo_id: str, repo_type: RepoType) -> InputError | None:
    """The answer of the hub in our words; None for anything but an answer of the hub."""
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return InputError("not a name on the hub", where=f"a {repo_type}", expected="OWNER/NAME", got=repo_id)
    if type(error).__name__ == "DatasetNotFoundError":  # datasets drops the cause, and keeps its text
        return NotOnHub("no such dataset on the hub", where=_host(), got=str(error))
    if not isinstance(error, errors.HfHubHTTPError):
        return None
    address, status = str(error.response.url), error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        expected = f"access granted on its page on {_host()}, then {LOG_IN}"
        return InputError(f"the {repo_type} is gated", where=repo_id, expected=expected, got=f"status {status}")
    if isinstance(error, errors.RepositoryNotFoundError):
        expected = f"one on {_host()}; a private one needs {LOG_IN}"
        return NotOnHub(f"no such {repo_type} on the hub", expected=expected, got=repo_id)
    if isinstance(error, errors.RevisionNotFoundError):
        revision = re.search(r"/(?:revision|resolve|tree|paths-info)/([^/?]+)", address)
        return InputError(
            "no such revision",
            where=repo_id,
            expected="a branch, a tag or a whole commit",
            got=unquote(revision[1]) if revision else address,
        )
    if isinstance(error, errors.EntryNotFoundError):
        return InputError("no such file on the hub", where=repo_id, got=unquote(urlsplit(address).path))
    if status in (401, 403):
        return InputError(
            "the hub refuses", where=repo_id, expected=f"a token that may: {LOG_IN}", got=f"status {status}"
        )
    if status in (408, 429) or status >= 500:
        return HubUnreachable("the hub cannot answer now", where=repo_id, reason=f"status {status}")
    return InputError("the hub refuses", where=repo_id, got=str(error))


def _is_network(error: BaseException) -> bool:
    from huggingface_hub import errors

    known = (ConnectionError, TimeoutError, errors.LocalEntryNotFoundError)
    return isinstance(error, known) or type(error).__module__.partition(".")[0] in NETWORK_LIBRARIES


def _reason(causes: list[BaseException]) -> str:
    from huggingface_hub import errors

    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return OFFLINE
    network = [cause for cause in causes if _is_network(cause)]
    # The outermost one speaks of the cache, the innermost of a socket without its address.
    telling = next((cause for cause in network if not isinstance(cause, errors.LocalEntryNotFoundError)), network[0])
    return f"{type(telling).__name__}: {telling}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _needed(repo_id: str, info: "ModelInfo", from_pt: bool) -> list["RepoSibling"]:
    """The files of a checkpoint, weights last: a folder that has them has all the others."""
    files = {file.rfilename: file for file in info.siblings}
    where = _short(repo_id, info.sha)
    if "config.json" not in files:
        raise InputError("no config.json in this repository", where=where, expected="a BERT checkpoint")
    weights = weight_files(files, from_pt=from_pt)
    if not weights:
        others = sorted(name for name in files if name.endswith(OTHER_WEIGHTS))
        got = ", ".join(others) or "no weights"
        raise InputError("no weights of BERT in this repository", where=where, expected=" or ".join(WEIGHTS), got=got)
    if weights[0].startswith(WEIGHTS[-1]) and importlib.util.find_spec("torch") is None:
        raise InputError(
            "a pickle is only read with PyTorch, which is not installed",
            where=where,
            expected=f"{WEIGHTS[0]}, or `pip install torch`",
            got=weights[0],
        )
    return [files[name] for name in ("config.json", *TOKENIZER, *weights) if name in files]


def weight_files(names: Iterable[str], *, from_pt: bool = False) -> list[str]:
    """The files to read weights from, an index before its shards; empty when there are none."""
    for whole in WEIGHTS:
        if from_pt and whole == "tf_model.h5":
            continue
        if whole in names:
            return [whole]
        stem, _, suffix = whole.partition(".")
        if f"{whole}.index.json" in names and suffix != "h5":
            shard = re.compile(rf"{stem}-\d{{5}}-of-\d{{5}}\.{suffix}")
            return [f"{whole}.index.json", *sorted(filter(shard.fullmatch, names))]
    return []


def _missing(folder: Path, from_pt: bool) -> list[str]:
    """What a cached checkpoint lacks, as far as can be told without the hub."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        missing.append("tokenizer.json")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    weights = weight_files(names, from_pt=from_pt)
    if not weights:
        return [*missing, WEIGHTS[0]]
    if weights[0] in WEIGHTS:
        return missing
    shards = json_files.read_object(folder / weights[0]).get("weight_map", {})
    return missing + [name for name in sorted(set(shards.values())) if name not in names]


def _fetch(files: Iterable["RepoSibling"], repo_id: str, commit: str) -> None:
    from huggingface_hub import constants

    blobs = _repository_folder(repo_id, "model") / "blobs"
    new = [file for file in files if not (blobs / (file.lfs.sha256 if file.lfs else file.blob_id)).is_file()]
    if new:
        size = _readable(sum(file.size for file in new))
        what = f"{len(new)} file{'s' * (len(new) > 1)}, {size}, into {constants.HF_HUB_CACHE}"
        print(f"fetching {_short(repo_id, commit)} from {_host()}: {what}", file=sys.stderr)
    for file in files:
        path = _fetched(file, repo_id, commit)
        if file in new and file.lfs:
            _check(path, file.lfs.sha256, where=f"{_short(repo_id, commit)} {file.rfilename}")


def _fetched(file: "RepoSibling", repo_id: str, commit: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        with named_faults(repo_id, "model"):
            return Path(hf_hub_download(repo_id, file.rfilename, revision=commit))
    except HubUnreachable as error:
        reason = error.reason
    except RuntimeError as error:  # hf_xet, which fetches most large files, names its faults no better
        reason = f"{type(error).__name__}: {error}"
    except OSError as error:
        if not str(error).startswith("Consistency check failed"):
            raise  # the disk is full, say
        reason = str(error)
    where, expected = f"{_short(repo_id, commit)} {file.rfilename}", f"{file.size} bytes"
    raise DownloadBroken("the download broke off; try again", where=where, expected=expected, got=reason)


def _check(path: Path, sha256: str, *, where: str) -> None:
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        path.resolve().unlink()  # the cache keeps a link to the content
        path.unlink(missing_ok=True)
        raise InputError("a fetched file is damaged; try again", where=where, expected=f"sha256 {sha256}", got=got)


def _repository_folder(repo_id: str, repo_type: RepoType) -> Path:
    """A repository's folder in the hub cache, whose layout is documented and shared by all who use the hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / "--".join([f"{repo_type}s", *repo_id.split("/")])


def _snapshot_folder(repo_id: str, commit: str, repo_type: RepoType) -> Path:
    return _repository_folder(repo_id, repo_type) / "snapshots" / commit


def _remember(repo_id: str, revision: str | None, repo_type: RepoType, commit: str) -> None:
    """Notes in the cache what a revision stands for, so that it is known without the hub."""
    if revision == commit:
        return
    path = _repository_folder(repo_id, repo_type) / "refs" / (revision or "main")
    with contextlib.suppress(OSError):  # a cache that cannot be written may still be read
        if not path.is_file() or path.read_text(encoding="utf-8") != commit:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{os.getpid()}")
            aside.write_text(commit, encoding="utf-8")
            aside.replace(path)


def _remembered(repo_id: str, revision: str | None, repo_type: RepoType, error: HubUnreachable) -> str:
    """What the cache knows of a revision while the hub is out of reach."""
    path = _repository_folder(repo_id, repo_type) / "refs" / (revision or "main")
    if revision and COMMIT.fullmatch(revision) and _snapshot_folder(repo_id, revision, repo_type).is_dir():
        commit = revision
    elif path.is_file():
        commit = path.read_text(encoding="utf-8").strip()
    else:
        what, where = (
            f"the {repo_type} is not in the cache",
            f"{_short(repo_id, revision)} ({_repository_folder(repo_id, repo_type)})",
        )
        raise HubUnreachable(what, where=where, reason=error.reason) from None
    if error.reason != OFFLINE:
        print(f"{error}: {_short(repo_id, commit)} is taken as the cache knows it", file=sys.stderr)
    return commit


def _short(repo_id: str, revision: str | None) -> str:
    if revision is None:
        return repo_id
    return f"{repo_id}@{revision[:7] if COMMIT.fullmatch(revision) else revision}"


def _readable(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT
