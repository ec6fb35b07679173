"""Whether a working directory holds a run to go on with, and whether a config may go on with it."""

import dataclasses
from pathlib import Path
from typing import Any

from tf_finetune import devices, runtime, settings
from tf_finetune.commands.restore import with_places_of
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError
from tf_finetune.training import checkpoints
from tf_finetune.training.checkpoints import START_OVER, TrainingState
from tf_finetune.workdir import MANIFEST, Workdir, writing

# What may change on the way; anything else would make it another run.
CHANGEABLE = (
    "train.epochs",
    "train.eval_batch_size",
    "train.early_stopping_patience",
    "train.checkpoint_every_steps",
    "train.checkpoint_every_minutes",
    "train.keep_checkpoints",
    "train.max_skipped_steps",
    "train.log_every_steps",
    "export.verify",
    "export.litert",
    "export.onnx",
    "export.compared_examples",
)
# What runs had of which they kept nothing.
FORMERLY = {"backend": "tensorflow", "strategy": "one_device", "replicas": 1, "processes": 1}


@dataclasses.dataclass(frozen=True)
class EarlierRun:
    """A run to go on with.

    Attributes:
        config: the one to go on with: that of the run, with what may change as it is asked for now.
        checkpoint: the last whole one.
        state: how far the run had come.
        surroundings: what its process ran on.
        config_before: the one that the checkpoint was written with.
    """

    config: ExperimentConfig
    checkpoint: Path
    state: TrainingState
    surroundings: dict[str, Any]
    config_before: ExperimentConfig


def earlier_run(config: ExperimentConfig, run: Workdir) -> EarlierRun | None:
    """The run in a working directory, its checkpoint checked; None where there is none, or no checkpoint of it yet.

    Raises:
        InputError: there is one of another config, or of a version that this one does not go on with, or it is damaged.
    """
    if not checkpoints.all_of(run.checkpoints):
        if run.metrics.exists():
            runtime.warn(f"there is no checkpoint yet of the run in {run.path}: it begins anew")
        return None
    found = checkpoints.newest(run.checkpoints, warn=runtime.warn)
    if found is None:
        raise InputError("no checkpoint is whole", where=run.checkpoints, expected=START_OVER)
    folder, state, manifest = found
    _check_backend(manifest.get("surroundings", {}), config, run)
    before = settings.from_dict(manifest.get("config"), where=folder / MANIFEST)
    config = with_places_of(before, config)
    _check_changes(before, config, run)
    done = state.epoch + bool(state.batch)
    if config.train.epochs < done:
        expected = f"at least {done}; {START_OVER}"
        raise InputError("the run has come further", where="train.epochs", expected=expected, got=config.train.epochs)
    return EarlierRun(config, folder, state, manifest.get("surroundings", {}), before)


def beginning(earlier: EarlierRun | None, data: dict[str, Any], *, source: str) -> TrainingState:
    """Where the run stands before its first step.

    Args:
        earlier: the run that is gone on with, if one is.
        data: what training is about to see, as `TrainingState.data` has it.
        source: where that comes from.

    Raises:
        InputError: it is not what the earlier run was trained on.
    """
    if not earlier:
        return TrainingState(data=data)
    for part, now in data.items():
        before = earlier.state.data[part]
        if before != now:
            what = "the labels are" if part == "labels" else f"the {part} split is"
            expected = f"{_in_words(before)}; {START_OVER}"
            raise InputError(
                f"{what} not what this run began with", where=source, expected=expected, got=_in_words(now)
            )
    return earlier.state


def _in_words(part: dict[str, Any]) -> str:
    if "names" in part:
        return f"{part['kind']}: {', '.join(part['names'])}"
    return f"{part['examples']} examples ({part['sha256'][:12]}...)"


def is_over(state: TrainingState, config: ExperimentConfig) -> bool:
    """Whether a run has nothing left to do: all epochs are done, or the validation got no better for long enough."""
    return state.epoch >= config.train.epochs or is_out_of_patience(state, config)


def is_out_of_patience(state: TrainingState, config: ExperimentConfig) -> bool:
    """Whether the validation got no better for long enough."""
    patience = config.train.early_stopping_patience
    return bool(patience and state.validations_since_best >= patience)


def end_in_words(state: TrainingState, config: ExperimentConfig) -> str:
    """Why a run has nothing left to do, and what would give it something."""
    why, more = [], []
    if state.epoch >= config.train.epochs:
        why.append(f"after {state.epoch} epoch{'s' if state.epoch > 1 else ''}")
        more.append(f"--config.train.epochs={state.epoch + 1}")
    if is_out_of_patience(state, config):
        why.append("as it got no better")
        more.append(f"--config.train.early_stopping_patience={state.validations_since_best + 1}")
    return f"{' and '.join(why)}, and its data was not looked at again; {' '.join(more)} trains on"


def settle(run: Workdir, state: TrainingState, config: ExperimentConfig) -> None:
    """Makes best.json, and which checkpoints there are, what the state last saved says; a kill may have come between.

    Those after it are damaged ones that were passed over.

    Raises:
        RunError: it cannot be written.
    """
    with writing(run.path):
        if state.best:
            run.publish_best(state.best)
        checkpoints.remove_later(run.checkpoints, run.checkpoints / state.name)
        checkpoints.prune(run.checkpoints, last=config.train.keep_checkpoints)


def say_what_changed(earlier: EarlierRun, surroundings: dict[str, Any]) -> None:
    """Prints where the run goes on, and what keeps its end from being the same bits as without the interruption."""
    state, config = earlier.state, earlier.config
    print(f"going on at step {state.step}, in epoch {state.epoch + 1}, from {earlier.checkpoint}", flush=True)
    epochs_before = earlier.config_before.train.epochs
    if config.train.epochs != epochs_before:
        print(
            f"train.epochs was {epochs_before} and is {config.train.epochs}: from here on the learning rate is that of "
            "such a run",
            flush=True,
        )
    for name in surroundings:
        before, now = earlier.surroundings.get(name, FORMERLY.get(name)), surroundings[name]
        if before != now:
            runtime.warn(f"{name} was {before} and is {now}: the last bits of the weights may differ for it")


def _check_backend(surroundings: dict[str, Any], config: ExperimentConfig, run: Workdir) -> None:
    """Batches and their dropout are others on another backend."""
    before, now = surroundings.get("backend", FORMERLY["backend"]), devices.check_backend(config.runtime.backend)
    if before != now:
        expected = f"--config.runtime.backend={before}; {START_OVER}"
        raise InputError("the run began on another backend", where=run.path, expected=expected, got=now)


def _check_changes(before: ExperimentConfig, config: ExperimentConfig, run: Workdir) -> None:
    kept = dict(settings.fields(before))
    changes = [
        f"{name} is {settings.plain(kept[name])} there and {settings.plain(value)} here"
        for name, value in settings.fields(config)
        if value != kept[name] and name not in CHANGEABLE
    ]
    if changes:
        raise InputError(
            f"the working directory holds a run of another config: {'; '.join(changes)}",
            where=run.path,
            expected=f"{START_OVER}, or a change of nothing but {', '.join(CHANGEABLE)}",
        )
