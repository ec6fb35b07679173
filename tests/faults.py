"""Something happens to a training run at a moment of our choice.

python faults.py POINT NUMBER ACTION train --config=... --workdir=...

runs the command line, and at the NUMBERth call of POINT does ACTION. Tests in one process use `at` alone.
"""

import json
import os
import signal
import subprocess
import sys
import time

from tf_finetune import settings
from tf_finetune.commands.train import train
from tf_finetune.serving import export as exporting
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.training import callbacks, checkpoints
from tf_finetune.training.optimizer import AdamWeightDecay

# What is called at each moment: an owner and the name of its function.
POINTS = {
    "step": (callbacks.Progress, "on_train_batch_end"),
    "validation": (callbacks.AfterPrediction, "on_predict_batch_end"),
    "tracing": (AdamWeightDecay, "scale_loss"),
    "saving": (checkpoints.workdir, "write_manifest"),
    "publishing": (checkpoints.workdir.os, "rename"),
    "json": (checkpoints.json_files, "write"),
    "removing": (checkpoints.workdir.shutil, "rmtree"),
    "tokenizer": (Tokenizer, "save_pretrained"),
    "pruning": (checkpoints, "prune"),
    "warmup": (exporting.warmup, "write"),
    "describing": (exporting, "write_manifest"),
}


class KilledError(BaseException):
    """Ends a run as nothing that it expects."""


def killed_at(config, workdir, monkeypatch, point, number):
    """Whether a run came to a point that it does not survive."""
    with monkeypatch.context() as patched:
        at(point, number, killed, set_attribute=patched.setattr)
        try:
            train(config, workdir)
        except KilledError:
            return True
    return False


def in_a_process(config, workdir, *fault):
    """Runs `train` in another process, with POINT, NUMBER and ACTION; returns what subprocess.run does."""
    path = workdir.with_suffix(".json")
    path.write_text(json.dumps(settings.to_dict(config)))
    command = [sys.executable, __file__, *fault, "train", f"--config={path}", f"--workdir={workdir}"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)


def at(point, number, action, *, set_attribute=setattr):
    """Calls `action()` before the call of that number, from 1, of a point."""
    owner, name = POINTS[point]
    function, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        if point == "publishing" and "checkpoints" not in str(args):  # the cache of rows and tokens renames, too
            return function(*args, **kwargs)
        calls.append(None)
        if len(calls) == number:
            action()
        return function(*args, **kwargs)

    set_attribute(owner, name, counted)


def killed():
    raise KilledError


def sigkill():
    os.kill(os.getpid(), signal.SIGKILL)


def sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


def sigint_twice():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.6)  # else it would be taken for an echo of the first
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)  # the second must not wait for the end of what is at work


if __name__ == "__main__":
    from tf_finetune import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    point, number, action, *arguments = sys.argv[1:]
    at(point, int(number), globals()[action])
    sys.exit(cli.main(["tf-finetune", *arguments]))
