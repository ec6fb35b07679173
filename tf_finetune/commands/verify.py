"""`tf-finetune verify`: does an export still answer as its checkpoint does?"""

from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune import runtime
from tf_finetune.commands import second_process
from tf_finetune.commands.evaluate import compared_examples
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig
from tf_finetune.data.examples import Examples
from tf_finetune.errors import InputError, RunError
from tf_finetune.serving.export import check_platform, description, newest
from tf_finetune.serving.questions import Questions, Task, hostile_texts
from tf_finetune.workdir import Workdir, read_manifest

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier
    from tf_finetune.serving.answers import Check

MARKS = {True: "kept", False: "BROKEN", None: "unseen"}


def verify(workdir: str | Path, config: ExperimentConfig | None = None) -> "list[Check]":
    """Asks the newest export, in new processes, what the best checkpoint answers.

    Where Keras is on JAX, a second process does so on TensorFlow; what it found is then printed, and not returned.

    Args:
        workdir: of a training run with an export.
        config: the run's own with another export section, or None.

    Raises:
        InputError: no trained model or no export there, or one of another checkpoint.
        RunError: a promise is broken; the table says which.
    """
    check_platform("verify")
    if second_process.is_needed():
        second_process.run_on_tensorflow("verify", workdir, config)
        return []
    target = newest(Workdir(workdir).export)
    checkpoint, config = trained_run("verify", workdir, config)
    if description(target).checkpoint != read_manifest(checkpoint)["files"]:
        raise InputError(
            "the newest export was made from another checkpoint",
            where=target,
            expected="an export of this run; `tf-finetune export` makes one",
        )
    print(f"verifying {target}")
    classifier, pairs = load_classifier(checkpoint, config), bool(config.data.text_pair_column)
    hostile = Questions.of(classifier, hostile_texts(pairs))
    test = questions_of_test_split(classifier, config, checkpoint, Workdir(workdir))
    return verified(target, Task.of(classifier, pairs=pairs), hostile, test)


def verify_saved_model(saved_model: str | Path) -> "list[Check]":
    """The same of any export, wherever it was copied to: against the answers of its checkpoint that it carries.

    Args:
        saved_model: a version, or a folder of versions, of which the newest is taken.

    Raises:
        InputError: no export there.
        RunError: a promise is broken.
    """
    check_platform("verify")
    target = newest(Path(saved_model).expanduser())
    kept = description(target)
    print(f"verifying {target}")
    runtime.import_tensorflow_quietly()
    return verified(target, kept.task, kept.questions, None)


def verified(target: Path, task: Task, hostile: Questions, test: Questions | None) -> "list[Check]":
    """A line a promise; raises RunError for the first broken one."""
    from tf_finetune.serving import verification

    checks = verification.verify(target, task, hostile, test)
    width = max(len(check.promise) for check in checks)
    for check in checks:
        print(f"  {MARKS[check.kept]:<8}{check.promise.ljust(width)}  {check.detail}")
    for check in checks:
        if check.kept is False:
            raise RunError(f"the export broke a promise: {check.promise}: {check.detail}")
    return checks


def questions_of_test_split(
    classifier: "Classifier",
    config: ExperimentConfig,
    checkpoint: Path,
    run: Workdir,
    compared_on: tuple[Examples, str] | None = None,
) -> Questions | None:
    """Those of `compared_examples`, unless they are given; None, and why, where they cannot be had."""
    try:
        few, _ = compared_on or compared_examples(config, checkpoint, run)
    except (InputError, OSError) as error:
        runtime.warn(f"no texts of the test split are compared: {error}")
        return None
    return Questions.of(classifier, (few.texts,) if few.text_pairs is None else (few.texts, few.text_pairs))
