"""`tf-finetune train`: a checkpoint and labelled text in, the best fine-tuned checkpoint out."""

import shlex
from pathlib import Path
from typing import Any

from tf_finetune import devices, runtime, settings
from tf_finetune.commands import continual, resume
from tf_finetune.commands.inputs import gather
from tf_finetune.config import ExperimentConfig
from tf_finetune.evaluation.metrics import headline
from tf_finetune.training.stops import Stops
from tf_finetune.workdir import Workdir, writing


def train(
    config: ExperimentConfig, workdir: str | Path, *, restart: bool = False, is_process: bool = False
) -> dict[str, Any]:
    """Fine-tunes a classifier and keeps the checkpoint with the best validation score.

    A run that was interrupted, by whatever it was, goes on from its last checkpoint, to the same weights bit for bit
    on the same CPU; a finished one stays as it is.

    Args:
        config: what to train, on what, how.
        workdir: where the run is kept; made when it is not there.
        restart: remove an earlier run from the workdir and start over.
        is_process: whether the process is the run's own, so that a second Ctrl-C may end it at once.

    Returns:
        The content of best.json: checkpoint, epoch, step, validation metrics, and the budget of tokens if there is one.

    Raises:
        InputError: a value, file or folder is not usable; the workdir then holds what it held before.
        RunError: loss or gradient are not finite, or there is too little memory or disk.
        Interrupted: by SIGTERM or Ctrl-C; what was done is kept.
    """
    devices.check_backend(config.runtime.backend)
    config = settings.validated(config)
    run, stops = Workdir(workdir), Stops(is_process=is_process, replaces=restart)
    with stops.watched(), run.locked():
        run.check_ours()
        run.remove_leftovers()
        continual.refuse_own_folder(config.model.checkpoint, run)
        earlier = None if restart else resume.earlier_run(config, run)
        if earlier and resume.is_over(earlier.state, earlier.config):
            return _finished(run, earlier)
        inputs = gather(config, earlier)
        runtime.import_tensorflow_quietly()
        from tf_finetune.commands.fit import fit

        best = fit(inputs, run, stops)
        _say_what_is_where(run, best)
        return best


def _finished(run: Workdir, earlier: resume.EarlierRun) -> dict[str, Any]:
    state = earlier.state
    resume.settle(run, state, earlier.config)
    with writing(run.config):
        run.publish_config(settings.to_dict(earlier.config_before))
    print(f"this run is finished, {resume.end_in_words(state, earlier.config)}, --restart starts over")
    _say_what_is_where(run, state.best)
    return state.best


def _say_what_is_where(run: Workdir, best: dict[str, Any]) -> None:
    score, epoch = headline(best["validation"]), best["epoch"] + 1
    print(f"best validation {score} at epoch {epoch}, kept in {run.checkpoints / best['checkpoint']}")
    print(f"curves: {run.metrics}, and for TensorBoard {run.tensorboard}")
    print("next:")
    flag = f"--workdir={shlex.quote(str(run.path))}"
    for command in ("evaluate", "predict", "export"):
        print(f"  tf-finetune {command} {flag}{' TEXT ...' if command == 'predict' else ''}", flush=True)
