"""`tf-finetune export`: the best checkpoint as a SavedModel, checked and then published."""

from pathlib import Path

from tf_finetune.commands.description import export_card
from tf_finetune.commands.other_forms import check_packages, write_other_forms
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.commands.verify import questions_of_test_split, verified
from tf_finetune.config import ExperimentConfig
from tf_finetune.serving.export import check_platform, describe, save_model, versions
from tf_finetune.serving.questions import Questions, Task, hostile_texts
from tf_finetune.serving.server_files import write_server_files
from tf_finetune.workdir import Workdir, published_folder, read_manifest


def export(workdir: str | Path, config: ExperimentConfig | None = None) -> Path:
    """Writes `workdir/export/N`, N the next free integer; a half-written version is never visible there.

    Args:
        workdir: of a training run.
        config: the run's config with another export section; None means the run's own.

    Returns:
        The folder of the new version.

    Raises:
        InputError: no trained model there, or a platform that tensorflow-text has no package for.
        RunError: the export does not answer as the checkpoint does; it is not published.
    """
    check_platform("export")
    checkpoint, config = trained_run("export", workdir, config)
    check_packages(config)
    manifest = read_manifest(checkpoint)
    classifier, pairs = load_classifier(checkpoint, config), bool(config.data.text_pair_column)
    task, hostile = Task.of(classifier, pairs=pairs), Questions.of(classifier, hostile_texts(pairs))
    run = Workdir(workdir)
    target = run.export / str(max(versions(run.export), default=0) + 1)
    with published_folder(target) as aside:
        save_model(classifier, aside, pairs=pairs)
        card = export_card(run, config, checkpoint, version=target.name)
        describe(aside, task, hostile, card=card, checkpoint=manifest)
        if config.export.verify:
            verified(aside, task, hostile, questions_of_test_split(classifier, config, checkpoint, run))
    write_server_files(run.export, run.path.resolve().name, classifier, pairs=pairs)
    print(f"exported to {target}")
    print(f"how to serve it: {run.export / 'README.md'}")
    write_other_forms(workdir, config, checkpoint, classifier)
    return target
