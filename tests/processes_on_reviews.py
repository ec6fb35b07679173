"""Trains the packaged reviews with one process and with several on this machine, kills one of them, starts them again,
and prints how far the ends are from that of one process.

Without dropout: a batch of 32 texts is filled up for three processes, and dropout would draw other masks for it.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tf_finetune import process_environment
from tf_finetune.workdir import checkpoint_folders

FLAGS = (
    "--config=reviews_minilm",
    "--config.runtime.backend=jax",
    "--config.runtime.precision=float32",
    "--config.model.hidden_dropout=0",
    "--config.model.attention_dropout=0",
    "--config.model.classifier_dropout=0",
    "--config.train.epochs=2",
    "--config.train.num_shapes=1",
    "--config.train.checkpoint_every_steps=5",
    "--config.train.log_every_steps=5",
)


def started(workdir: Path, count: int, flags: list[str]) -> list[subprocess.Popen]:
    """As many processes as are to train together; what they say lies beside the workdir."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "tf_finetune", "train", f"--workdir={workdir}", *FLAGS, *flags]
    running = []
    for index in range(count):
        place = dict(zip(process_environment.VARIABLES, (address, str(count), str(index)), strict=True))
        said = (workdir.parent / f"{workdir.name}_{index}.txt").open("w")
        running.append(subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | place))
    return running


def statuses(running: list[subprocess.Popen]) -> list[int]:
    return [process.wait() for process in running]


def killed(workdir: Path, count: int, victim: int, flags: list[str]) -> None:
    """Kills one of them after the first checkpoint; prints how the others end."""
    running = started(workdir, count, flags)
    while not checkpoint_folders(workdir / "checkpoints") and running[0].poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    running[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    print(f"{count} processes, {victim} killed: status {statuses(running)} after {time.monotonic() - began:.1f} s")
    for index in set(range(count)) - {victim}:
        lines = (workdir.parent / f"{workdir.name}_{index}.txt").read_text().splitlines()
        print(f"  process {index}: {lines[-1]}", flush=True)


def validations(workdir: Path) -> list[dict]:
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["split"] == "validation"]


def compare(workdir: Path, reference: Path) -> None:
    last, expected = (checkpoint_folders(one / "checkpoints")[-1] for one in (workdir, reference))
    weights, theirs = (load_file(folder / "model.safetensors") for folder in (last, expected))
    furthest = max(float(np.abs(weights[name] - value).max()) for name, value in theirs.items())
    losses = [f"{record['loss']:.6f}" for record in validations(workdir)]
    apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(validations(workdir), validations(reference), strict=True))
    print(
        f"{workdir.name}: {last.name}, accuracy {validations(workdir)[-1]['accuracy']:.4f}, validation losses "
        f"{', '.join(losses)}; from one process: losses {apart:.1e}, weights {furthest:.1e} at most",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=480, help="of each split at most")
    parser.add_argument("--folder", type=Path)
    chosen, flags = parser.parse_known_args()
    flags = [f"--config.data.max_examples={chosen.examples}", *flags]
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        for count, victim in ((1, None), (2, 1), (3, 0)):
            workdir, began = folder / f"{count}_processes", time.monotonic()
            if victim is not None:
                killed(workdir, count, victim, flags)
            if any(found := statuses(started(workdir, count, flags))):
                raise SystemExit(f"status {found}: {(folder / f'{workdir.name}_0.txt').read_text()}")
            print(f"{count} processes ended after {time.monotonic() - began:.0f} s in all")
            compare(workdir, folder / "1_processes")


if __name__ == "__main__":
    main()
