"""`tf-finetune verify`: does the newest export still answer as its checkpoint does?"""

from pathlib import Path

from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError, RunError
from tf_finetune.serving import verification
from tf_finetune.serving.export import check_platform, versions
from tf_finetune.workdir import MANIFEST, Workdir

# Inside an export: the manifest of the checkpoint it was made from. TensorFlow Serving passes assets.extra over.
SOURCE = Path("assets.extra") / "checkpoint_manifest.json"


def verify(workdir: str | Path, config: ExperimentConfig | None = None) -> list[verification.Check]:
    """Asks the newest export, in a process without Python TensorFlow, what the best checkpoint answers.

    Args:
        workdir: of a training run with an export.
        config: the run's own, or None.

    Raises:
        InputError: no trained model or no export there.
        RunError: a promise is broken; the table says which.
    """
    check_platform("verify")
    folder = Workdir(workdir).export
    published = versions(folder)
    if not published:
        raise InputError("nothing to verify", where=folder, expected="a version that `tf-finetune export` wrote")
    checkpoint, config = trained_run("verify", workdir, config)
    target = folder / str(published[-1])
    if (target / SOURCE).read_bytes() != (checkpoint / MANIFEST).read_bytes():
        raise InputError(
            "the newest export was made from another checkpoint",
            where=target,
            expected="an export of this run; `tf-finetune export` makes one",
        )
    print(f"verifying {target}")
    pairs = bool(config.data.text_pair_column)
    checks = verification.verify(target, load_classifier(checkpoint, config), pairs=pairs)
    print_checks(checks)
    return checks


def print_checks(checks: list[verification.Check]) -> None:
    """A line a promise; raises RunError for the first broken one."""
    for check in checks:
        print(f"  {'kept  ' if check.kept else 'BROKEN'}  {check.promise}: {check.detail}")
    for check in checks:
        if not check.kept:
            raise RunError(f"the export broke a promise: {check.promise}: {check.detail}")
