"""Kills one run by SIGKILL at random moments, types the same command again, and compares its end with that of a run
that nobody killed.

Each start is killed at a moment drawn evenly between its first instruction and so long after its first checkpoint that
one run lives through all kills: some fall into start-up, the others all over the training.

The flags are those of a short run on the packaged reviews unless others are given.
"""

import argparse
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from outcomes import differences, outcome

from tf_finetune.workdir import checkpoint_folders

SHORT = (
    "--config=reviews_minilm",
    "--config.data.max_examples=480",
    "--config.train.epochs=3",
    "--config.train.validate_every_steps=10",
    "--config.train.checkpoint_every_steps=6",
    "--config.train.early_stopping_patience=6",
    "--config.train.log_every_steps=5",
)


def started(workdir: Path, flags: list[str], said: IO[str]) -> subprocess.Popen:
    command = [sys.executable, "-u", "-m", "tf_finetune", "train", f"--workdir={workdir}", *flags]
    return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)


def uninterrupted(workdir: Path, flags: list[str]) -> tuple[float, float]:
    """Seconds until a run's first checkpoint, and until its end."""
    began, first = time.monotonic(), None
    with tempfile.TemporaryFile("w+") as said:
        process = started(workdir, flags, said)
        while process.poll() is None:
            if first is None and checkpoint_folders(workdir / "checkpoints"):
                first = time.monotonic() - began
            time.sleep(0.05)
        check(process, said)
    return first, time.monotonic() - began


def check(process: subprocess.Popen, said: IO[str]) -> None:
    if process.returncode:
        said.seek(0)
        raise SystemExit(f"train failed: {said.read()}")


def killed_after(workdir: Path, flags: list[str], seconds: float) -> str | None:
    """The last that a run said before it was killed then; None if it had ended before."""
    with tempfile.TemporaryFile("w+") as said:
        process = started(workdir, flags, said)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            said.seek(0)
            return (said.read().splitlines() or [""])[-1].strip()[:60]
        check(process, said)
    return None


def trained(seconds: float, *, starting: float, starts: int) -> float:
    """How long a start may train so that, on average, half of the training is done after so many of them.

    Of moments even over `starting + w`, a start trains w**2 / 2 / (starting + w) on average.
    """
    share = seconds / 2 / starts
    return share + math.sqrt(share**2 + 2 * share * starting)


def reached(workdir: Path) -> str:
    """The last checkpoint, and what a save had begun and not finished."""
    checkpoints = checkpoint_folders(workdir / "checkpoints")
    begun = [path.name for path in (workdir / "checkpoints").glob(".*")]
    last = checkpoints[-1].name if checkpoints else "no checkpoint"
    return f"{last}, {begun[0]} begun" if begun else last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=Path)
    chosen, flags = parser.parse_known_args()
    flags, moments = flags or list(SHORT), random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.workdir or Path(temporary)
        first, seconds = uninterrupted(folder / "uninterrupted", flags)
        latest = first + trained(seconds - first, starting=first, starts=chosen.kills)
        print(f"uninterrupted: {first:.1f} s to the first checkpoint, {seconds:.1f} s in all", flush=True)
        kills = 0
        while kills < chosen.kills:
            after = moments.uniform(0, latest)
            said = killed_after(folder / "killed", flags, after)
            if said is None:
                compare(folder)
                print(f"the run ended, the same bits, before kill {kills + 1}; another is begun", flush=True)
                shutil.rmtree(folder / "killed")
                continue
            kills += 1
            print(f"kill {kills:2} after {after:5.1f} s: {reached(folder / 'killed')}; {said!r}", flush=True)
        uninterrupted(folder / "killed", flags)
        compare(folder)
    print(f"{kills} kills; the same bits at the end")


def compare(folder: Path) -> None:
    if wrong := differences(outcome(folder / "killed"), outcome(folder / "uninterrupted")):
        raise SystemExit(f"not the same: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
