"""Which parts of a recipe pay on the packaged reviews: accuracy and loss on validation, seconds and memory.

python benchmarks/recipes.py [--recipes plain ema+smoothing ...] [--seeds 42 43 44]
python benchmarks/recipes.py --screen
python benchmarks/recipes.py --test --recipes plain CHOSEN

A recipe is parts with plus signs between. `--screen` trains eight of them, in which each of seven parts is there four
times and absent four times, and any two parts are together twice (a fractional factorial of resolution III), and says
what each part changes on average: with the noise of eight runs for each part, where one run with it and one without
would have that of two.

Each is a run of `train` in .data/recipes/NAME/SEED: an interrupted one goes on, a finished one is not trained again.
Settings are chosen on validation; `--test` asks the test split, once, of what was chosen.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workload

from tf_finetune.commands.evaluate import evaluate

FOLDER = workload.DATA / "recipes"
CONFIG = "reviews_minilm"
# Name: what differs from the config, which trains three epochs at 1e-4 on the linear schedule.
PARTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rate_5e-5": {"optimizer.learning_rate": 5e-5},
    "rate_2e-4": {"optimizer.learning_rate": 2e-4},
    "rate_1e-3": {"optimizer.learning_rate": 1e-3},
    "cosine": {"optimizer.schedule": "cosine"},
    "constant": {"optimizer.schedule": "constant"},
    "layer_decay": {"optimizer.layer_decay": 0.9},
    "ema": {"optimizer.ema_momentum": 0.995},
    "smoothing": {"train.label_smoothing": 0.1},
    "dropout_0": {"model.hidden_dropout": 0.0, "model.attention_dropout": 0.0},
    "dropout_0.2": {"model.hidden_dropout": 0.2},
    "weight_decay_0.1": {"optimizer.weight_decay": 0.1},
    "freeze_embeddings": {"model.freeze_embeddings": True},
    "freeze_3": {"model.freeze_embeddings": True, "model.freeze_layers": 3},
    "reinit_1": {"model.reinit_layers": 1},
    "batch_16": {"train.batch_size": 16},
    "epochs_4": {"train.epochs": 4},
    "lora_8": {"model.lora_rank": 8, "model.lora_targets": "all_linear"},
    "validate_often": {"train.validate_every_steps": 66},
}
SCREENED = ("rate_2e-4", "layer_decay", "ema", "smoothing", "dropout_0.2", "freeze_embeddings", "reinit_1")


def design() -> list[str]:
    """The recipes of the screening: all eight of the first three parts, the others by the signs of their products."""
    recipes = []
    for number in range(8):
        a, b, c = (1 if number >> bit & 1 else -1 for bit in range(3))
        signs = (a, b, c, -a * b, -a * c, -b * c, a * b * c)
        recipes.append("+".join(part for part, sign in zip(SCREENED, signs, strict=True) if sign > 0) or "plain")
    return recipes


def settings_of(recipe: str) -> dict[str, Any]:
    """The config fields that a recipe sets."""
    return {name: value for part in recipe.split("+") for name, value in PARTS[part].items()}


def flags(recipe: dict[str, Any], seed: int) -> list[str]:
    """The command line of a recipe."""
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in recipe.items()}
    return [f"--config.{name}={value}" for name, value in {**words, "runtime.seed": seed}.items()]


def run(name: str, seed: int) -> dict[str, Any]:
    """What a run says of itself: validation, seconds and peak memory of its process, trained weights."""
    workdir = FOLDER / name / str(seed)
    kept = workdir / "recipe.json"
    if not kept.is_file():
        is_new = not workdir.exists()
        command = [sys.executable, "-m", "tf_finetune", "train", f"--config={CONFIG}", f"--workdir={workdir}"]
        began = time.perf_counter()
        process = subprocess.Popen([*command, *flags(settings_of(name), seed)], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{name}, seed {seed}: status {os.waitstatus_to_exitcode(status)}")
        seconds = time.perf_counter() - began if is_new else None  # of one that went on it would be a part
        best = json.loads((workdir / "best.json").read_text())
        found = {
            "settings": settings_of(name),
            "seconds": seconds,
            "peak_bytes": used.ru_maxrss * 1024,
            "trained": trained_weights(workdir),
        }
        kept.write_text(json.dumps({"validation": best["validation"], **found}))
    found = json.loads(kept.read_text())
    if found.get("settings") != settings_of(name):
        sys.exit(f"{workdir} is of other settings; remove it")
    return found


def trained_weights(workdir: Path) -> int:
    """How many numbers the optimizer moves: the size of its first moments."""
    from safetensors import safe_open

    newest = max((workdir / "checkpoints").glob("step_*"))
    with safe_open(newest / "training_state.safetensors", "np") as state:
        moments = [name for name in state.keys() if name.endswith("_momentum")]  # noqa: SIM118 - not a dict
        return sum(state.get_tensor(name).size for name in moments)


def row(name: str, runs: list[dict[str, Any]], plain: list[dict[str, Any]]) -> str:
    accuracy = [_accuracy(one) for one in runs]
    gain = statistics.mean(accuracy) - statistics.mean(map(_accuracy, plain))
    loss = statistics.mean(map(_loss, runs))
    seconds = [one["seconds"] for one in runs if one["seconds"]]
    spent = f"{statistics.median(seconds):.0f}" if seconds else "-"
    memory, trained = max(one["peak_bytes"] for one in runs) / 2**30, runs[0]["trained"] / 1e6
    cells = [f"{statistics.mean(accuracy):.2f}", _spread(accuracy), f"{gain:+.2f}", f"{loss:.4f}", spent]
    return f"| {name} | {' | '.join(cells)} | {memory:.2f} | {trained:.2f} |"


def effect(part: str, runs: dict[str, dict[str, Any]], measure: Callable[[dict[str, Any]], float]) -> float:
    """The mean of the recipes with a part, less the mean of those without it."""
    sides = {True: [], False: []}
    for recipe, one in runs.items():
        sides[part in recipe.split("+")].append(measure(one))
    return statistics.mean(sides[True]) - statistics.mean(sides[False])


def _accuracy(one: dict[str, Any]) -> float:
    return 100 * one["validation"]["accuracy"]


def _loss(one: dict[str, Any]) -> float:
    return one["validation"]["loss"]


def _auc(one: dict[str, Any]) -> float:
    return 100 * one["validation"]["roc_auc"]


def _spread(values: list[float]) -> str:
    return f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"


def screen(seed: int) -> None:
    runs = {name: run(name, seed) for name in design()}
    print("| recipe | accuracy | area under ROC | loss |")
    print("|---|---|---|---|")
    for name, one in runs.items():
        print(f"| {name.replace('+', ', ')} | {_accuracy(one):.2f} | {_auc(one):.2f} | {_loss(one):.4f} |")
    print("\n| part | accuracy | area under ROC | loss |")
    print("|---|---|---|---|")
    for part in SCREENED:
        changes = (effect(part, runs, measure) for measure in (_accuracy, _auc, _loss))
        print("| {} | {:+.2f} | {:+.2f} | {:+.4f} |".format(part, *changes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["plain"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--screen", action="store_true", help="with the first seed; the recipes are of the design")
    what.add_argument("--test", action="store_true")
    options = parser.parse_args()
    for part in (part for recipe in options.recipes for part in recipe.split("+")):
        if part not in PARTS:
            parser.error(f"no such part: {part}; there are {', '.join(PARTS)}")
    if options.screen:
        screen(options.seeds[0])
        return
    if options.test:
        for name in options.recipes:
            found = [100 * evaluate(FOLDER / name / str(seed))["test"]["accuracy"] for seed in options.seeds]
            print(f"{name}: test {statistics.mean(found):.2f}, spread {_spread(found)}")
        return
    runs = {name: [] for name in dict.fromkeys(["plain", *options.recipes])}
    for seed in options.seeds:  # a recipe's runs are spread over the hours, as the machine's speed may be
        for name, of_recipe in runs.items():
            of_recipe.append(run(name, seed))
            print(f"{name}, seed {seed}: {of_recipe[-1]['validation']['accuracy']:.4f}", file=sys.stderr)
    print("| recipe | validation | spread | gain | loss | seconds | peak GiB | trained, millions |")
    print("|---|---|---|---|---|---|---|---|")
    for name, of_recipe in runs.items():
        print(row(name, of_recipe, runs["plain"]))


if __name__ == "__main__":
    main()
