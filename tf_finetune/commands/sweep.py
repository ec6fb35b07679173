"""`tf-finetune sweep`: which values of some config fields do best in validation, one run a trial (Optuna)."""

import contextlib
import importlib.util
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_finetune import hub, json_files, runtime, settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.commands import search_space, several_runs
from tf_finetune.commands.search_space import Range, SearchSpace
from tf_finetune.commands.train import train
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.errors import InputError, RunError
from tf_finetune.evaluation.metrics import headline, score
from tf_finetune.workdir import Workdir, remove_folder

if TYPE_CHECKING:
    import optuna

STUDY, RESULT, FAILED, SCORE = "study.db", "sweep.json", "failed.json", "score.json"
# Failures in a row after which it is hardly the values.
MOST_FAILURES = 3


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
        RunError: three trials in a row failed; the same call tries others.
        Interrupted: as `train` does.
    """
    space = search_space.parse(search)
    several_runs.check(settings.validated(config))
    if trials < 1:
        raise InputError("no trials", where="--trials", expected="1 or more", got=trials)
    if importlib.util.find_spec("optuna") is None:
        raise InputError("a sweep needs optuna, not installed here", where="sweep", expected="pip install optuna")
    plan = {"config": settings.to_dict(config), "search": list(search)}
    with (
        several_runs.at_work(Workdir(workdir), plan, is_process=is_process) as root,
        _study(root.path, seed=config.runtime.seed) as study,
    ):
        failures = 0
        for number, values in _to_be_run(study, space, trials):
            print(f"trial {number:04d} of {trials}: {_in_words(values)}", flush=True)
            try:
                is_good = _run(study, number, settings.with_values(config, values), root.path, is_process=is_process)
            except InputError:
                if not number:  # of the first trial, and so most likely of all
                    (root.path / STUDY).unlink()
                    several_runs.forget_plan(root)
                raise
            failures = 0 if is_good else failures + 1
            if failures == MOST_FAILURES:
                raise RunError(f"{failures} trials in a row failed, the last one in {_run_of(number, root.path).path}")
            _forget_checkpoints(study, root.path, space)
        rows = _ranked(study, root.path, space)
        json_files.write(root.path / RESULT, rows)
    _print_table(rows, list(space), config.train.best_metric)
    print(f"trials are runs, in {root.path / 'trials'}; the first of the table has its checkpoints still", flush=True)
    return rows


@contextlib.contextmanager
def _study(folder: Path, *, seed: int) -> Iterator["optuna.Study"]:
    """The sweep's own, on disk: what it has been told stays."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / STUDY).absolute()}")
    try:
        study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
        # Another seed after each interruption, or else the same values would be suggested again.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _to_be_run(study: "optuna.Study", space: SearchSpace, trials: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers and values of trials: those that were interrupted, then new ones up to the number of trials."""
    import optuna

    fields = dict(settings.fields(ExperimentConfig()))

    def typed(values: dict[str, Any]) -> dict[str, Any]:
        return {name: search_space.typed(value, fields[name]) for name, value in values.items()}

    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        if trial.params.keys() == space.keys():
            yield trial.number, typed(trial.params)
        else:  # killed while its values were chosen
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    wanted = {name: _distribution(values, fields[name]) for name, values in space.items()}
    while sum(trial.params.keys() == space.keys() for trial in study.trials) < trials:
        trial = study.ask(wanted)
        yield trial.number, typed(trial.params)


def _distribution(values: Range | tuple[Any, ...], default: Any):
    from optuna import distributions

    if not isinstance(values, Range):
        return distributions.CategoricalDistribution(values)
    kind = distributions.IntDistribution if isinstance(default, int) else distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _run(study: "optuna.Study", number: int, config: ExperimentConfig, root: Path, *, is_process: bool) -> bool:
    """Trains a trial, and tells the study how good it is; or that it could not be trained, and why.

    Raises:
        InputError: the first trial could not be; or the hub is out of reach, which is no fault of the trial.
    """
    run = _run_of(number, root)
    try:
        best = train(config, run.path, is_process=is_process)
    except (InputError, RunError) as error:
        if hub.is_to_be_tried_again(error) or (isinstance(error, InputError) and not number):
            raise
        return _failed(study, number, run, str(error))
    several_runs.forget_models()
    kind = ProblemType(BertArchitecture.from_folder(run.checkpoints / best["checkpoint"]).resolved_problem_type)
    value = score(best["validation"], kind, config.train.best_metric)[0]
    if not math.isfinite(value):  # of answers that are all the same there is no correlation, for one
        return _failed(study, number, run, f"no {config.train.best_metric} of these answers")
    json_files.write(run.path / SCORE, {"score": value, "validation": best["validation"]})
    study.tell(number, value)
    return True


def _failed(study: "optuna.Study", number: int, run: Workdir, error: str) -> bool:
    """Tells the study, and returns that the trial is not good."""
    import optuna

    runtime.warn(f"trial {number:04d} failed: {error}")
    run.path.mkdir(parents=True, exist_ok=True)
    json_files.write(run.path / FAILED, {"error": error})
    study.tell(number, state=optuna.trial.TrialState.FAIL)
    return False


def _run_of(number: int, root: Path) -> Workdir:
    return Workdir(root / "trials" / f"{number:04d}")


def _forget_checkpoints(study: "optuna.Study", root: Path, space: SearchSpace) -> None:
    """Removes the checkpoints of all trials but the best one's."""
    best, *others = _ranked(study, root, space)
    for row in others if "score" in best else ():
        if (folder := _run_of(row["trial"], root).checkpoints).exists():
            remove_folder(folder)


def _ranked(study: "optuna.Study", root: Path, space: SearchSpace) -> list[dict[str, Any]]:
    """Those that were told, the best first: the lower loss among equals; those that failed last."""
    good, failed = [], []
    for trial in study.trials:
        if trial.params.keys() != space.keys() or not trial.state.is_finished():
            continue
        run, row = _run_of(trial.number, root), {"trial": trial.number, "values": trial.params}
        if trial.value is None:
            failed.append(row | json_files.read_object(run.path / FAILED))
        else:
            good.append(row | json_files.read_object(run.path / SCORE))
    return sorted(good, key=lambda row: (-row["score"], row["validation"]["loss"])) + failed


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_short(settings.plain(value))}" for name, value in values.items())


def _print_table(rows: list[dict[str, Any]], names: list[str], best_metric: str) -> None:
    width = [max(len(name), 12) + 2 for name in names]
    print("rank  trial  " + "validation".ljust(36) + "".join(n.rjust(w) for n, w in zip(names, width, strict=True)))
    for rank, row in enumerate(rows, start=1):
        shown = "".join(_short(row["values"][n]).rjust(w) for n, w in zip(names, width, strict=True))
        place = f"{rank:>4}" if "score" in row else "   -"
        print(f"{place}   {row['trial']:04d}  {_validation(row, best_metric):<36}{shown}")


def _validation(row: dict[str, Any], best_metric: str) -> str:
    if "score" not in row:
        return "failed"
    numbers = row["validation"]
    first = f"{best_metric} {numbers.get(best_metric, float('nan')):.4f}" if best_metric else headline(numbers)
    return first if best_metric == "loss" else f"{first}  loss {numbers['loss']:.4f}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
