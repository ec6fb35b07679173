"""What a model of film reviews forgets while it learns product reviews, with and without `data.replay`.

python benchmarks/forgetting.py [--replays 0 0.5 1]

The old model is the plain run of seed 42 of recipes.py, a run of `reviews_minilm`. Each run goes on from it for three
epochs at 5e-5 on `product_reviews`, of the same archive; `evaluate` measures the old test split beside the new one, now
and before. Runs are in .data/forgetting/REPLAY; a finished one is not trained again.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import workload

from tf_finetune.commands.evaluate import evaluate

FOLDER = workload.DATA / "forgetting"
OLD = (workload.DATA / "recipes" / "plain" / "42").resolve()


def update(replay: float) -> tuple[Path, float]:
    """The workdir of a run that goes on from the old one, and the seconds it took (this time)."""
    workdir = FOLDER / f"{replay:g}"
    command = [sys.executable, "-m", "tf_finetune", "train", "--config=reviews_minilm", f"--workdir={workdir}"]
    command += [f"--config.model.checkpoint={OLD}", "--config.data.source=product_reviews"]
    command += [f"--config.data.replay={replay}", "--config.optimizer.learning_rate=5e-5"]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return workdir, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", nargs="+", type=float, default=[0.0, 0.5, 1.0])
    options = parser.parse_args()
    print("| replay | new test | old test, before | old test, now | change | seconds |")
    print("|---|---|---|---|---|---|")
    for replay in options.replays:
        workdir, seconds = update(replay)
        found = evaluate(workdir)
        new, before, now = (100 * found[split]["accuracy"] for split in ("test", "old_test_before", "old_test"))
        print(
            f"| {replay:g} | {new:.2f} | {before:.2f} | {now:.2f} | {now - before:+.2f} | {seconds:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
