"""What evaluate, predict, export and verify start from: the best checkpoint of a workdir and its config."""

from pathlib import Path

from tf_finetune import settings
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.workdir import Workdir

# What may differ from the training run, by command. Everything else is a fact of the trained model.
CHANGEABLE = {
    "evaluate": ("data.source", "data.text_column", "data.label_column", "data.max_examples", "train.eval_batch_size"),
    "predict": ("data.text_column", "train.eval_batch_size"),
    "export": ("export.verify",),
    "verify": (),
}


def restore(command: str, workdir: str | Path, config: ExperimentConfig | None) -> tuple[Classifier, ExperimentConfig]:
    """Loads the best checkpoint.

    Args:
        command: which command asks.
        workdir: of a training run.
        config: the run's own, with changes the command can act on; None means just the run's own.

    Raises:
        InputError: no trained model there, or a change that the command cannot act on.
    """
    run = Workdir(workdir)
    folder = run.best_checkpoint()
    trained = settings.load_json(run.config)
    config = settings.resolved(settings.validated(config or trained))
    before = dict(settings.fields(trained))
    for name, value in settings.fields(config):
        if value != before[name] and name not in CHANGEABLE[command]:
            raise InputError(
                f"{command} cannot change {name} of a trained model",
                where=run.config,
                expected=f"{before[name]}, or no override",
                got=value,
            )
    return Classifier.from_checkpoint(folder, **settings.classifier_options(config)), config
