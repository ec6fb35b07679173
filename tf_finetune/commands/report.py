"""`tf-finetune report`: one page that says what a model was made of, how good it is and where it fails."""

import os
from pathlib import Path
from typing import Any

from tf_finetune import json_files, runtime, settings
from tf_finetune.commands import failures, measurements, report_facts, second_process
from tf_finetune.commands.cross_validate import PREDICTIONS
from tf_finetune.commands.description import label_names
from tf_finetune.commands.evaluate import SPLITS, held_out, load_splits, warn_if_changed
from tf_finetune.commands.model_card import evaluation_in, model_card
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.errors import InputError
from tf_finetune.evaluation import groups, label_errors
from tf_finetune.evaluation.identity_terms import PACKAGED, Axis, read_terms
from tf_finetune.workdir import Workdir


def report(
    workdir: str | Path,
    config: ExperimentConfig | None = None,
    *,
    audit: bool = False,
    identity_terms: str | Path | None = None,
    out_of_fold: str | Path | None = None,
) -> dict[str, Any]:
    """Measures the best checkpoint on validation and test; writes report.html, report.json and model_card.md there.

    Where Keras is on JAX, a second process does so on TensorFlow.

    The page needs nothing beside itself, neither scripts nor the network. It holds texts of the data: those that are
    answered wrong with the most confidence. The card holds none.

    Args:
        workdir: of a training run.
        config: the run's config with other data.slice_columns; None means the run's own.
        audit: also ask whether answers change with the people a text speaks of, and compare the groups that
            data.slice_columns name.
        identity_terms: a file of words for groups of people, in the form of evaluation/identity_terms.txt, beside ours.
        out_of_fold: the workdir of `cross-validate` on the same data: also look for wrong labels, and write
            workdir/label_errors.csv; without it, that of an earlier report is removed.

    Returns:
        What report.json holds: run, data, training, results, slices, errors, audit and label_errors (None where not
        asked for), and summary.

    Raises:
        InputError: no trained model there, its data cannot be read, or what is asked for beside it cannot be had.
    """
    if second_process.is_needed():
        places = {"identity_terms": identity_terms, "out_of_fold": out_of_fold}
        flags = [*(["--audit"] if audit else []), *(f"--{name}={place}" for name, place in places.items() if place)]
        second_process.run_on_tensorflow("report", workdir, config, *flags)
        return json_files.read_object(Workdir(workdir).report_facts)
    folder, config = trained_run("report", workdir, config)
    run = Workdir(workdir)
    axes = _axes(config, identity_terms, audit=audit)
    wrong_labels = _label_errors(out_of_fold, run, folder)
    try:
        facts, card = _measured(run, folder, config, axes, wrong_labels)
        _write(run, facts, card)
    finally:
        _aside(run).unlink(missing_ok=True)
    return facts


def _measured(
    run: Workdir, folder: Path, config: ExperimentConfig, axes: list[Axis] | None, wrong_labels: dict[str, Any] | None
) -> tuple[dict[str, Any], str]:
    """The facts, and the model card."""
    columns, seed = settings.slice_columns(config), config.runtime.seed
    splits = load_splits(config, folder, run)
    data = report_facts.of_data(config, folder)
    classifier = load_classifier(folder, config)
    changed = warn_if_changed(folder, classifier, splits, counts=not config.data.replay)
    measured = {name: measurements.of(classifier, splits[name]) for name in SPLITS if name in splits}
    name = held_out(measured)
    facts = {
        "run": report_facts.of_run(run, folder, config, classifier),
        "data": data,
        "training": report_facts.of_training(run, folder, config.train.best_metric),
        "results": measurements.results(measured, classifier, seed=seed),
        "slices": {"split": name, **failures.slice_tables(measured[name], classifier, columns)},
        "errors": {"split": name, **failures.errors(measured[name], classifier)},
        "audit": None if axes is None else failures.audit(measured[name], classifier, axes, columns, seed=seed),
        "label_errors": wrong_labels,
    }
    facts["summary"] = report_facts.summary(facts, classifier.problem_type, changed=changed)
    return facts, _card(facts, config, list(classifier.label_names), classifier.temperature)


def _axes(config: ExperimentConfig, identity_terms: str | Path | None, *, audit: bool) -> list[Axis] | None:
    """What an audit needs, found before anything is computed; None without one."""
    if not audit and identity_terms is not None:
        raise InputError("--identity_terms is for an audit", expected="--audit beside it", got=identity_terms)
    if not audit:
        return None
    if settings.slice_columns(config) and config.model.problem_type is not ProblemType.REGRESSION:
        groups.check_installed()
    return read_terms(PACKAGED, *([Path(identity_terms).expanduser()] if identity_terms is not None else []))


def _label_errors(out_of_fold: str | Path | None, run: Workdir, checkpoint: Path) -> dict[str, Any] | None:
    if out_of_fold is None:
        return None
    path = Path(out_of_fold).expanduser() / PREDICTIONS
    if not path.is_file():
        expected = f"a workdir that `tf-finetune cross-validate` filled, with {PREDICTIONS}"
        raise InputError("no answers of cross-validation", where="--out_of_fold", expected=expected, got=out_of_fold)
    found, ours = label_errors.read_out_of_fold(path).label_names, label_names(checkpoint)
    if sorted(found) != sorted(ours):
        expected, got = (", ".join(names[:20]) for names in (ours, found))
        raise InputError("cross-validation of other labels", where=path, expected=expected, got=got)
    found = label_errors.review(path, _aside(run), shown=failures.MOST_EXAMPLES)
    return found | {"table": str(run.label_errors)}


def _aside(run: Workdir) -> Path:
    """Where the table is until the page that speaks of it is there."""
    return run.label_errors.with_name(f".{run.label_errors.name}.new")


def _card(facts: dict[str, Any], config: ExperimentConfig, labels: list[str], temperature: float) -> str:
    repo_id = f"OWNER/{facts['run']['name']}"  # whose it will be nobody knows yet
    return model_card(repo_id, config, labels, evaluation_in(facts), temperature, facts)


def _write(run: Workdir, facts: dict[str, Any], card: str) -> None:
    from tf_finetune.pages import page

    html = page.render(facts)
    json_files.write(run.report_facts, facts)
    json_files.write_text(run.report, html)
    json_files.write_text(run.model_card, card)
    if facts["label_errors"]:
        os.replace(_aside(run), run.label_errors)
    else:
        run.label_errors.unlink(missing_ok=True)
    summary = facts["summary"]
    runtime.say(summary["headline"])
    for sentence in (*summary["sentences"], *summary["of_the_data"]):
        runtime.say(f"  {sentence}")
    beside = f"the same facts in {run.report_facts.name}, and a model card in {run.model_card.name}"
    runtime.say(f"report: {run.report}, {beside}")
