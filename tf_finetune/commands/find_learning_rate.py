"""`tf-finetune find-learning-rate`: the loss while the learning rate rises (Smith 2017), and its plot."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune import devices, json_files, process_environment, runtime, settings
from tf_finetune.commands import batch_memory
from tf_finetune.commands.inputs import gather
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import RunError
from tf_finetune.workdir import Workdir

STEPS, HIGHEST = 100, 1e-2
SMOOTHING = 0.9  # of the loss from step to step
DIVERGED = 2.0  # times the lowest smoothed loss, where the rising ends
SHARE = 0.1  # of the rate of the lowest loss: what is suggested
RESULT, PLOT = "learning_rates.json", "learning_rates.svg"


def find_learning_rate(config: ExperimentConfig, workdir: str | Path) -> dict[str, Any]:
    """Trains up to STEPS steps while the learning rate rises from 1e-7 to 1e-2, and says which one to try.

    What is suggested is a tenth of the rate with the lowest smoothed loss (the range test of
    https://arxiv.org/abs/1506.01186). The model is thrown away.

    Args:
        config: of the run to come; schedule, warmup and learning rate aside.
        workdir: gets learning_rates.json and learning_rates.svg.

    Returns:
        "suggested", and by step "learning_rate", "loss" and "smoothed".

    Raises:
        InputError: as `train` does.
        RunError: too little memory, a loss that is not finite at once, or one that never falls.
    """
    process_environment.refuse("find-learning-rate")
    devices.check_backend(settings.validated(config).runtime.backend)
    folder = Workdir(workdir)
    with folder.locked():
        inputs = gather(config)
        runtime.import_tensorflow_quietly()
        rates, losses = _losses(inputs)
        smoothed = smooth(losses)
        found = {"suggested": suggestion(rates, smoothed), "learning_rate": rates, "loss": losses, "smoothed": smoothed}
        json_files.write(folder.path / RESULT, found)
        _print_table(found)
        _plot(found, folder.path / PLOT)
    if found["suggested"] is None:
        raise RunError(f"no learning rate to suggest: the loss was {smoothed[0]:.4f} at first, and never fell below")
    print(f"suggested: --config.optimizer.learning_rate={found['suggested']:g}", flush=True)
    return found


def smooth(losses: list[float]) -> list[float]:
    """Exponential moving average, its start corrected as Adam's is."""
    mean, smoothed = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**step))
    return smoothed


def suggestion(rates: list[float], smoothed: list[float]) -> float | None:
    """Of two digits; None where the loss never fell."""
    lowest = int(np.argmin(smoothed))
    return float(f"{SHARE * rates[lowest]:.1e}") if lowest else None


def _losses(inputs) -> tuple[list[float], list[float]]:
    """Learning rates and losses by step, until the loss diverges."""
    from tf_finetune.commands.fit import set_up

    trained_on = set_up(inputs.config)
    with trained_on.scope():
        return _losses_on(inputs, trained_on)


def _losses_on(inputs, trained_on: devices.Devices) -> tuple[list[float], list[float]]:
    from tf_finetune.commands.fit import prepared, say_runtime, with_budget
    from tf_finetune.commands.model_setup import compile_classifier
    from tf_finetune.commands.training_loop import no_room, training_order_of
    from tf_finetune.data.pipeline import batches
    from tf_finetune.training.callbacks import BatchLosses
    from tf_finetune.training.checkpoints import TrainingState

    classifier, tokenized = prepared(inputs, trained_on)
    train = tokenized["train"]
    chosen = with_budget(inputs.config, TrainingState(), train.lengths, classifier.model)
    say_runtime(trained_on, chosen, train, classifier.model)
    whole_range = {"optimizer.learning_rate": HIGHEST, "optimizer.warmup_steps": 0, "optimizer.warmup_proportion": 0.0}
    chosen = settings.with_values(chosen, whole_range)
    schedule = compile_classifier(classifier, train.labels, chosen, STEPS, schedule="range_test")
    losses = BatchLosses(_has_diverged)
    orders = (training_order_of(train, chosen, epoch) for epoch in itertools.count())
    while len(losses.seen) < STEPS and not losses.is_over:
        order, before = next(orders), len(losses.seen)
        shared = devices.replicas_at_work() > 1
        dataset = batches(train, order, weighted=shared).take(STEPS - before)
        with batch_memory.answered(lambda: no_room(chosen, order, len(losses.seen) - before)):  # noqa: B023
            classifier.model.fit(dataset, epochs=1, shuffle=False, verbose=0, callbacks=[losses])
    if not losses.seen:
        raise RunError("the first training loss is not finite")
    return [float(schedule(step)) for step in range(len(losses.seen))], losses.seen


def _has_diverged(losses: list[float]) -> bool:
    smoothed = smooth(losses)
    return smoothed[-1] > DIVERGED * min(smoothed)


def _print_table(found: dict[str, Any]) -> None:
    rows = list(zip(found["learning_rate"], found["smoothed"], strict=True))
    print("learning rate  smoothed loss")
    for rate, loss in rows[:: max(1, len(rows) // 12)]:
        print(f"{rate:>13.1e}  {loss:>13.4f}", flush=True)


def _plot(found: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found["learning_rate"], found["loss"], color="0.8", label="loss of each batch")
    axes.plot(found["learning_rate"], found["smoothed"], label="smoothed")
    if suggested := found["suggested"]:
        axes.axvline(suggested, linestyle="--", color="0.4", label=f"suggested: {suggested:g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend()
    figure.savefig(path)
    print(f"plot: {path}", flush=True)
