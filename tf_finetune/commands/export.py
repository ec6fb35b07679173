"""`tf-finetune export`: the best checkpoint as a SavedModel, checked and then published."""

from pathlib import Path

from tf_finetune.commands import second_process
from tf_finetune.commands.description import export_card
from tf_finetune.commands.other_forms import check_packages, examples_for_forms, write_other_forms
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.commands.verify import questions_of_test_split, verified
from tf_finetune.config import ExperimentConfig
from tf_finetune.serving.export import check_platform, describe, newest, next_version, save_model
from tf_finetune.serving.questions import Questions, Task, hostile_texts
from tf_finetune.serving.server_files import write_server_files
from tf_finetune.workdir import EXPORT_LOCK, Workdir, published_folder, read_manifest


def export(workdir: str | Path, config: ExperimentConfig | None = None) -> Path:
    """Writes `workdir/export/N`, N the next free integer; a half-written version is never visible there.

    Where Keras is on JAX, a second process does so on TensorFlow.

    Args:
        workdir: of a training run.
        config: the run's config with another export section; None means the run's own.

    Returns:
        The folder of the new version.

    Raises:
        InputError: no trained model there, another export at work, a package that a form needs and that is missing, or
            a platform that tensorflow-text has no package for.
        RunError: the export does not answer as the checkpoint does; it is not published.
    """
    check_platform("export")
    if second_process.is_needed():
        second_process.run_on_tensorflow("export", workdir, config)
        return newest(Workdir(workdir).export)
    checkpoint, config = trained_run("export", workdir, config)
    check_packages(config)
    with Workdir(workdir).locked(EXPORT_LOCK, what="export"):
        return _export(Workdir(workdir), checkpoint, config)


def _export(run: Workdir, checkpoint: Path, config: ExperimentConfig) -> Path:
    classifier, pairs = load_classifier(checkpoint, config), bool(config.data.text_pair_column)
    task, hostile = Task.of(classifier, pairs=pairs), Questions.of(classifier, hostile_texts(pairs))
    compared_on = examples_for_forms(config, checkpoint, classifier, run)
    target = next_version(run.export)
    with published_folder(target) as aside:
        save_model(classifier, aside, pairs=pairs)
        card = export_card(run, config, checkpoint, version=target.name)
        describe(aside, task, hostile, card=card, checkpoint=read_manifest(checkpoint))
        if config.export.verify:
            test = questions_of_test_split(classifier, config, checkpoint, run, compared_on)
            verified(aside, task, hostile, test)
        else:
            print("not verified, as asked: export.verify=false")
    write_server_files(run.export, run.path.resolve().name, classifier, pairs=pairs)
    print(f"exported to {target}")
    print(f"how to serve it: {run.export / 'README.md'}")
    write_other_forms(run.path, config, checkpoint, classifier, compared_on)
    return target
