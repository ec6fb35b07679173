"""`tf-finetune export`: the best checkpoint as a SavedModel, checked and then published."""

import shutil
from pathlib import Path

from tf_finetune.commands.other_forms import check_packages, write_other_forms
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.commands.verify import SOURCE, print_checks
from tf_finetune.config import ExperimentConfig
from tf_finetune.serving import verification
from tf_finetune.serving.export import check_platform, save_model, versions
from tf_finetune.workdir import MANIFEST, Workdir, published_folder


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
    classifier, pairs = load_classifier(checkpoint, config), bool(config.data.text_pair_column)
    folder = Workdir(workdir).export
    target = folder / str(max(versions(folder), default=0) + 1)
    with published_folder(target) as aside:
        save_model(classifier, aside, pairs=pairs)
        (aside / SOURCE).parent.mkdir()
        shutil.copyfile(checkpoint / MANIFEST, aside / SOURCE)
        if config.export.verify:
            print_checks(verification.verify(aside, classifier, pairs=pairs))
    print(f"exported to {target}")
    write_other_forms(workdir, config, checkpoint, classifier)
    return target
