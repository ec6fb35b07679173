"""The command line in this process: as a user's own process answers, without the seconds that one takes to start."""

import contextlib
import io
import subprocess
import sys
from unittest import mock

from tf_finetune import cli


def tf_finetune(*arguments, stdin="", cwd="."):
    """Returns what subprocess.run would, of `tf-finetune ARGUMENTS`."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "stdin", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = cli.main(["tf-finetune", *map(str, arguments)])
    said, complained = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, status, said, complained)
