"""JSON files, read with their faults named and written whole, as any small text file is."""

import json
import os
from pathlib import Path
from typing import Any

from tf_finetune.errors import InputError

# A stranger's file may be of any size; a config or an index is never near this.
LARGEST_BYTES = 100 * 2**20


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: it cannot be read, or is no object.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"more than {LARGEST_BYTES // 2**20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"unreadable {path.name}", where=path, expected="JSON", got=str(error)) from None
    except RecursionError:
        raise InputError(f"unreadable {path.name}", where=path, got="brackets nested without end") from None
    if not isinstance(content, dict):
        got = type(content).__name__
        raise InputError(f"unreadable {path.name}", where=path, expected="a JSON object", got=got)
    return content


def write(path: Path, content: Any, *, allow_nan: bool = False) -> None:
    """Writes the file whole, see `write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes the file whole: aside first, then renamed over the old one. A process that is killed meanwhile leaves
    `.NAME.PROCESS` behind."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a machine that loses its power may keep the new name and no content
        os.replace(aside, path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk's has none
        raise
