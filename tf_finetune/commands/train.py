"""`tf-finetune train`: a checkpoint and labelled text in, the best fine-tuned checkpoint out."""

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_finetune import devices, process_environment, processes, runtime, settings
from tf_finetune.commands import continual, resume
from tf_finetune.commands.inputs import gather
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError
from tf_finetune.evaluation.metrics import headline
from tf_finetune.training import checkpoints
from tf_finetune.training.stops import Stops
from tf_finetune.workdir import LOCK, Workdir, writing


def train(
    config: ExperimentConfig, workdir: str | Path, *, restart: bool = False, is_process: bool = False
) -> dict[str, Any]:
    """Fine-tunes a classifier and keeps the checkpoint with the best validation score.

    A run that was interrupted, by whatever it was, goes on from its last checkpoint, to the same weights bit for bit
    on the same CPU; a finished one stays as it is.

    Several processes, each told its place by the environment (`process_environment.py`), train together if each calls
    this with the same arguments. Where one is lost the others end, their process included if it waits in vain.

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
        Interrupted: by SIGTERM or Ctrl-C, or another process is lost; what was done is kept.
    """
    config = settings.validated(config)
    place = process_environment.given(devices.check_backend(config.runtime.backend))
    _check_budget(config, place)
    processes.join(place)
    agree = processes.agreed if processes.count() > 1 else None
    run, stops = Workdir(workdir), Stops(is_process=is_process, replaces=restart, agree=agree)

    def way_on() -> str:
        return f"{checkpoints.what_is_kept(run.checkpoints)}; {stops.way_on()}, in every process"

    with stops.watched(), processes.at_work(way_on), _held(run):
        _check_same(config, restart)
        continual.refuse_own_folder(config.model.checkpoint, run)
        earlier = None if restart else resume.earlier_run(config, run)
        _check_seen(run, earlier)
        if earlier and resume.is_over(earlier.state, earlier.config):
            return _finished(run, earlier)
        inputs = gather(config, earlier)
        runtime.import_tensorflow_quietly()
        from tf_finetune.commands.fit import fit

        best = fit(inputs, run, stops)
        _say_what_is_where(run, best)
        return best


@contextlib.contextmanager
def _held(run: Workdir) -> Iterator[None]:
    """The folder, by the one process that writes to it; the others wait until it is theirs to look at."""
    with run.locked() if processes.is_writer() else contextlib.nullcontext():
        if processes.is_writer():
            run.check_ours()
            run.remove_leftovers()
        processes.meet()
        yield


def _check_budget(config: ExperimentConfig, place: process_environment.Place) -> None:
    if place.count > 1 and config.train.batch_tokens == 0:
        expected = "a number of tokens, as the free memory is another one in each process"
        raise InputError("no common budget", where="train.batch_tokens", expected=expected, got=0)


def _check_same(config: ExperimentConfig, restart: bool) -> None:
    """Whether all processes were given the same."""
    ours = {"--restart": restart, **{name: settings.plain(value) for name, value in settings.fields(config)}}
    given = [json.loads(word) for word in processes.exchanged(json.dumps(ours))]
    for number, theirs in enumerate(given):
        if differing := [name for name in ours if theirs[name] != given[0][name]]:
            name, expected = differing[0], "the same command for each of them"
            got = f"{given[0][name]!r} in process 0 and {theirs[name]!r} in process {number}"
            raise InputError("the processes of this run differ", where=name, expected=expected, got=got)


def _check_seen(run: Workdir, earlier: resume.EarlierRun | None) -> None:
    """Whether all processes see the same folder."""
    seen = "no folder" if not (run.path / LOCK).exists() else "no checkpoint"
    seen = earlier.checkpoint.name if earlier else seen
    processes.same(
        "what they see in the working directory", seen, expected=f"{run.path} on a file system that all of them share"
    )


def _finished(run: Workdir, earlier: resume.EarlierRun) -> dict[str, Any]:
    state = earlier.state
    processes.meet()  # each has read what is about to change
    if processes.is_writer():
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
