"""`tf-finetune sweep`: which values of some config fields do best in validation, one run a trial (Optuna)."""

import contextlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_finetune import json_files, runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.commands import search_space
from tf_finetune.commands.search_space import Range, SearchSpace
from tf_finetune.commands.train import train
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.errors import InputError, RunError
from tf_finetune.evaluation.metrics import headline, score
from tf_finetune.workdir import Workdir, remove_folder

if TYPE_CHECKING:
    import optuna

PLAN, STUDY, RESULT = "plan.json", "study.db", "sweep.json"


def sweep(
    config: ExperimentConfig, workdir: str | Path, *, search: Sequence[str], trials: int, is_process: bool = False
) -> list[dict[str, Any]]:
    """Trains one run a trial, with values that Optuna's TPE sampler suggests, and ranks them by validation.

    Interrupted, it goes on with the same call: a trial is a run of `train` in a folder of its own, and the trial at
    work goes on first. A larger number of trials goes on from the smaller one. Checkpoints are kept of the best trial.

    Args:
        config: of every trial, but for what is searched.
        workdir: gets `trials/0000` and so on, the study, and sweep.json, which is what is returned.
        search: see search_space.FORMS.
        trials: how many in all, those that failed included.
        is_process: as of `train`.

    Returns:
        A row a trial, the best first and those that failed last: "trial", "values", and "score" and "validation" or
        "error".

    Raises:
        InputError: no such field or value, another sweep in the folder, or the first trial cannot be trained.
        Interrupted: as `train` does.
    """
    space = search_space.parse(search, settings.validated(config))
    if trials < 1:
        raise InputError("no trials", where="--trials", expected="1 or more", got=trials)
    if importlib.util.find_spec("optuna") is None:
        raise InputError("a sweep needs optuna, not installed here", where="sweep", expected="pip install optuna")
    root = Workdir(workdir)
    if root.config.exists():
        raise InputError("the folder holds a run", where=root.path, expected="a folder for the runs of a sweep")
    with root.locked():
        _keep_plan(root.path, config, search)
        study = _study(root.path, seed=config.runtime.seed)
        for number, values in _to_be_run(study, space, trials, config):
            print(f"trial {number + 1} of {trials}: {_in_words(values)}", flush=True)
            _run(study, number, settings.with_values(config, values), root.path, is_process=is_process)
            _forget(study, root.path)
        rows = _ranked(study, root.path, space, config)
        json_files.write(root.path / RESULT, rows)
    _print_table(rows, list(space))
    print(f"the trials are runs in {root.path / 'trials'}; the best one has its checkpoints still", flush=True)
    return rows


def _keep_plan(folder: Path, config: ExperimentConfig, search: Sequence[str]) -> None:
    """Writes down what is searched, or compares it with what is there."""
    plan = {"config": settings.to_dict(config), "search": list(search)}
    if (folder / PLAN).exists():
        if json_files.read_object(folder / PLAN) != plan:
            expected = "the config and --search that it began with, or another --workdir"
            raise InputError("the folder holds another sweep", where=folder, expected=expected)
        return
    json_files.write(folder / PLAN, plan)


def _study(folder: Path, *, seed: int) -> "optuna.Study":
    """The sweep's own, on disk: what it has been told stays."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{(folder / STUDY).absolute()}"
    study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
    # Another seed after each interruption, or else the same values would be suggested again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def _to_be_run(
    study: "optuna.Study", space: SearchSpace, trials: int, config: ExperimentConfig
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers and values of trials: those that were interrupted, then new ones up to the number of trials."""
    import optuna

    before = dict(settings.fields(config))

    def typed(values: dict[str, Any]) -> dict[str, Any]:
        return {name: search_space.typed(value, before[name]) for name, value in values.items()}

    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        if trial.params.keys() == space.keys():
            yield trial.number, typed(trial.params)
        else:  # killed while its values were chosen
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    wanted = {name: _distribution(values, before[name]) for name, values in space.items()}
    while sum(trial.params.keys() == space.keys() for trial in study.trials) < trials:
        trial = study.ask(wanted)
        yield trial.number, typed(trial.params)


def _distribution(values: Range | tuple[Any, ...], default: Any):
    from optuna import distributions

    if not isinstance(values, Range):
        return distributions.CategoricalDistribution(values)
    kind = distributions.IntDistribution if isinstance(default, int) else distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _run(study: "optuna.Study", number: int, config: ExperimentConfig, root: Path, *, is_process: bool) -> None:
    """Trains a trial, and tells the study how good it is; or that it could not be trained, and why."""
    import keras
    import optuna

    run = _run_of(number, root)
    try:
        best = train(config, run.path, is_process=is_process)
    except (InputError, RunError) as error:
        if isinstance(error, InputError) and not number:  # most likely of all of them
            raise
        runtime.warn(f"trial {number + 1} failed: {error}")
        run.path.mkdir(parents=True, exist_ok=True)
        json_files.write(run.path / "failed.json", {"error": str(error)})
        study.tell(number, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(number, _score(run, config, best)[0])
    keras.backend.clear_session()


def _score(run: Workdir, config: ExperimentConfig, best: dict[str, Any]) -> tuple[float, float]:
    kind = ProblemType(BertArchitecture.from_folder(run.checkpoints / best["checkpoint"]).resolved_problem_type)
    return score(best["validation"], kind, config.train.best_metric)


def _run_of(number: int, root: Path) -> Workdir:
    return Workdir(root / "trials" / f"{number:04d}")


def _forget(study: "optuna.Study", root: Path) -> None:
    """Removes the checkpoints of all trials that were told, but for the best one's."""
    with contextlib.suppress(ValueError):  # none is good yet
        best = study.best_trial.number
        for trial in study.trials:
            folder = _run_of(trial.number, root).checkpoints
            if trial.state.is_finished() and trial.number != best and folder.exists():
                remove_folder(folder)


def _ranked(study: "optuna.Study", root: Path, space: SearchSpace, config: ExperimentConfig) -> list[dict[str, Any]]:
    good, failed = [], []
    for trial in study.trials:
        if trial.params.keys() != space.keys():
            continue
        run, row = _run_of(trial.number, root), {"trial": trial.number, "values": trial.params}
        if trial.value is None:
            failed.append(row | json_files.read_object(run.path / "failed.json"))
        else:
            validation = json.loads(run.best.read_text(encoding="utf-8"))["validation"]
            good.append(row | {"score": trial.value, "validation": validation})
    return sorted(good, key=lambda row: (-row["score"], row["validation"]["loss"])) + failed


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={settings.plain(value)}" for name, value in values.items())


def _print_table(rows: list[dict[str, Any]], names: list[str]) -> None:
    width = [max(len(name), 12) + 2 for name in names]
    print("rank  trial  " + "validation".ljust(34) + "".join(n.rjust(w) for n, w in zip(names, width, strict=True)))
    for rank, row in enumerate(rows, start=1):
        good = "validation" in row
        said = f"{headline(row['validation'])}  loss {row['validation']['loss']:.4f}" if good else "failed"
        shown = "".join(_short(row["values"][n]).rjust(w) for n, w in zip(names, width, strict=True))
        print(f"{rank if good else '-':>4}  {row['trial'] + 1:>5}  {said:<34}{shown}")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
