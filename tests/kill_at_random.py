"""Kills one run by SIGKILL at random moments, types the same command again, and compares its end with that of a run
that nobody killed.

python tests/kill_at_random.py [--kills 20] [--seed 0] [--workdir FOLDER] [FLAG OF train ...]

The flags are those of a short run on the packaged reviews unless others are given.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from outcomes import differences, outcome

SHORT = (
    "--config=reviews_minilm",
    "--config.data.max_examples=480",
    "--config.train.epochs=3",
    "--config.train.validate_every_steps=10",
    "--config.train.checkpoint_every_steps=6",
    "--config.train.early_stopping_patience=6",
    "--config.train.log_every_steps=5",
)


def command(workdir: Path, flags: list[str]) -> list[str]:
    return [sys.executable, "-m", "tf_finetune", "train", f"--workdir={workdir}", *flags]


def timed_run(workdir: Path, flags: list[str]) -> float:
    began = time.monotonic()
    result = subprocess.run(command(workdir, flags), capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"train failed: {result.stderr}")
    return time.monotonic() - began


def kill_after(workdir: Path, flags: list[str], seconds: float) -> bool:
    """Whether the run was still at work then."""
    process = subprocess.Popen(command(workdir, flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise SystemExit(f"train failed: {said}")
    return False


def last_checkpoint(workdir: Path) -> str:
    names = sorted(path.name for path in (workdir / "checkpoints").glob("step_*"))
    return names[-1] if names else "no checkpoint"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=Path)
    chosen, flags = parser.parse_known_args()
    flags, moments = flags or list(SHORT), random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.workdir or Path(temporary)
        seconds = timed_run(folder / "uninterrupted", flags)
        print(f"uninterrupted: {seconds:.1f} s, {last_checkpoint(folder / 'uninterrupted')}", flush=True)
        kills, starts = 0, 0
        while kills < chosen.kills:
            after, starts = moments.uniform(0, seconds), starts + 1
            if not kill_after(folder / "killed", flags, after):
                print(f"start {starts}: ended by itself; a run of its own is begun", flush=True)
                if wrong := differences(outcome(folder / "killed"), outcome(folder / "uninterrupted")):
                    raise SystemExit(f"not the same: {', '.join(wrong)}")
                shutil.rmtree(folder / "killed")
                continue
            kills += 1
            print(f"kill {kills:2} after {after:5.1f} s: {last_checkpoint(folder / 'killed')}", flush=True)
        timed_run(folder / "killed", flags)
        wrong = differences(outcome(folder / "killed"), outcome(folder / "uninterrupted"))
    print(
        f"{kills} kills; not the same: {', '.join(wrong)}" if wrong else f"{kills} kills, and the same bits at the end"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
