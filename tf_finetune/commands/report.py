"""`tf-finetune report`: one page that says what a model was made of, how good it is and where it fails."""

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_finetune import json_files, runtime, settings
from tf_finetune.commands import check_data, measurements
from tf_finetune.commands.cross_validate import PREDICTIONS
from tf_finetune.commands.evaluate import SPLITS, load_splits
from tf_finetune.commands.model_card import model_card
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.errors import InputError
from tf_finetune.evaluation import label_errors, overfitting
from tf_finetune.evaluation.identity_terms import PACKAGED, read_terms
from tf_finetune.workdir import Workdir, read_manifest

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# Points of the learning curves that the page shows; metrics.jsonl has all.
MOST_POINTS = 200


def report(
    workdir: str | Path,
    config: ExperimentConfig | None = None,
    *,
    audit: bool = False,
    identity_terms: str | Path | None = None,
    out_of_fold: str | Path | None = None,
) -> dict[str, Any]:
    """Measures the best checkpoint on validation and test; writes report.html, report.json and model_card.md there.

    The page needs nothing beside itself, neither scripts nor the network. It holds texts of the data: those that are
    answered wrong with the most confidence.

    Args:
        workdir: of a training run.
        config: the run's config with other data.slice_columns; None means the run's own.
        audit: also ask whether answers change with the people a text speaks of, and compare the groups that
            data.slice_columns name.
        identity_terms: a file of words for groups of people, in the form of evaluation/identity_terms.txt, beside ours.
        out_of_fold: the workdir of `cross-validate` on the same data: also look for wrong labels, and write
            workdir/label_errors.csv.

    Returns:
        What report.json holds: run, data, training, results, slices, errors, audit and label_errors (None where not
        asked for), and summary.

    Raises:
        InputError: no trained model there, its data cannot be read, or what is asked for beside it cannot be had.
    """
    folder, config = trained_run("report", workdir, config)
    run = Workdir(workdir)
    terms = read_terms(PACKAGED, *([Path(identity_terms)] if identity_terms else [])) if audit else None
    wrong_labels = _label_errors(out_of_fold, run) if out_of_fold else None
    splits = load_splits(config, folder, run)
    classifier = load_classifier(folder, config)
    measured = {name: measurements.of(classifier, splits[name]) for name in SPLITS if name in splits}
    facts = {
        "run": _run(run, folder, config, classifier),
        "data": _data(config),
        "training": _training(run, folder),
        "results": measurements.results(measured, classifier, seed=config.runtime.seed),
        **measurements.where_it_fails(measured, classifier, columns=settings.slice_columns(config)),
    }
    columns = settings.slice_columns(config)
    facts["audit"] = measurements.audit(measured, classifier, terms, columns, config.runtime.seed) if terms else None
    facts["label_errors"] = wrong_labels
    facts["summary"] = _summary(facts, classifier.problem_type)
    _write(run, facts, _card(run, config, classifier, facts))
    return facts


def _card(run: Workdir, config: ExperimentConfig, classifier: "Classifier", facts: dict[str, Any]) -> str:
    """For a repository under the name of the run; whose it will be nobody knows yet."""
    evaluation = {
        name: {"source": config.data.source, **split["metrics"]} for name, split in facts["results"]["splits"].items()
    }
    repo_id, names = f"OWNER/{run.path.resolve().name}", list(classifier.label_names)
    return model_card(repo_id, config, names, evaluation, classifier.temperature, facts)


def _label_errors(folder: str | Path, run: Workdir) -> dict[str, Any]:
    path = Path(folder).expanduser() / PREDICTIONS
    if not path.is_file():
        expected = f"a workdir that `tf-finetune cross-validate` filled, with {PREDICTIONS}"
        raise InputError("no answers of cross-validation", where="--out_of_fold", expected=expected, got=folder)
    return label_errors.review(path, run.label_errors, shown=measurements.MOST_EXAMPLES)


def _write(run: Workdir, facts: dict[str, Any], card: str) -> None:
    from tf_finetune.pages import page

    html = page.render(facts)
    json_files.write(run.report_facts, facts)
    json_files.write_text(run.report, html)
    json_files.write_text(run.model_card, card)
    runtime.say(facts["summary"]["headline"])
    for sentence in facts["summary"]["sentences"]:
        runtime.say(f"  {sentence}")
    beside = f"the same facts in {run.report_facts.name}, and a model card in {run.model_card.name}"
    runtime.say(f"report: {run.report}, {beside}")


def _run(run: Workdir, folder: Path, config: ExperimentConfig, classifier: "Classifier") -> dict[str, Any]:
    """Of the manifest, what says how the checkpoint came about."""
    manifest = read_manifest(folder)
    surroundings = manifest.get("surroundings", {})
    facts = {
        "labels": ", ".join(classifier.label_names),
        "data": config.data.source,
        "started from": manifest.get("base", config.model.checkpoint),
        "weights": f"{classifier.model.count_params():,}",
        "temperature": f"{classifier.temperature:.4g}",
        "seed": str(config.runtime.seed),
        "command": manifest.get("command", ""),
        "trained with": ", ".join(f"{name} {value}" for name, value in surroundings.items()),
    }
    return {
        "name": run.path.resolve().name,
        "version": metadata.version("tf_finetune"),
        "checkpoint": folder.name,
        "facts": {name: value for name, value in facts.items() if value},
        "config": settings.to_dict(config),
    }


def _data(config: ExperimentConfig) -> dict[str, Any]:
    found = check_data.check_data(config, most_rows=measurements.MOST_EXAMPLES)
    names = dict.fromkeys(label for split in found["splits"].values() for label in split["labels"])
    return found | {"labels": list(names)}


def _training(run: Workdir, folder: Path) -> dict[str, Any]:
    records = []
    for line in run.metrics.read_text(encoding="utf-8").splitlines() if run.metrics.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            runtime.warn(f"a line of {run.metrics} is damaged and left out of the curves")
            continue
        records.append({name: value for name, value in record.items() if name != "timing"})
    signs = overfitting.signs(records, best_step=int(folder.name.removeprefix("step_")))
    step = -(-len(records) // MOST_POINTS) or 1
    records = [one for number, one in enumerate(records) if one["split"] == "validation" or number % step == 0]
    shown = [name for name in ("loss", "accuracy") if any(name in one for one in records)]
    return {"records": records, "curves": shown, "signs": signs}


def _summary(facts: dict[str, Any], problem_type: ProblemType) -> dict[str, Any]:
    """The first thing to read: how good, and what to look at."""
    splits = facts["results"]["splits"]
    name = "test" if "test" in splits else "validation"
    main = measurements.main_metric(problem_type)
    value, interval = splits[name]["metrics"][main], splits[name]["intervals"].get(main)
    spread = f" (95% interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    sentences = [_before(facts["training"]["records"], splits, main)]
    sentences += facts["training"]["signs"]
    if reliability := splits[name]["reliability"]:
        before, after = (reliability[when]["expected_calibration_error"] for when in ("before", "after"))
        sentences.append(
            f"Probabilities are {after:.1%} off on average (ECE) on {name}; before calibration {before:.1%}."
        )
    worse = [one for table in facts["slices"]["tables"] for one in table["rows"] if one["is_worse"]]
    sentences += [
        f"Worse where {one['column']} is {one['value']}: {facts['slices']['score']} {one['score']:.4f}, "
        f"{one['examples']} examples."
        for one in worse
    ]
    bad = [one["sentence"] for one in facts["data"]["findings"] if one["severity"] != "note"]
    sentences += [f"In the data: {sentence}." for sentence in bad]
    return {"headline": f"{name} {main} {value:.4f}{spread}", "sentences": [one for one in sentences if one]}


def _before(records: list[dict[str, Any]], splits: dict[str, Any], main: str) -> str:
    first = [one for one in records if one["split"] == "validation" and one["step"] == 0]
    if not first or main not in first[0] or "validation" not in splits:
        return ""
    after = splits["validation"]["metrics"][main]
    return f"On validation it went from {first[0][main]:.4f} to {after:.4f} by training."
