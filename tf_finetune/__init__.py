"""Fine-tune BERT text classifiers with TensorFlow and Keras, and serve them with TensorFlow Serving."""

import importlib

__version__ = "0.1.0"

# Public name -> module, imported on first use, so that `import tf_finetune` takes no time.
_PUBLIC = {
    "TFBertModel": "tf_finetune.bert.model",
    "TFBertForSequenceClassification": "tf_finetune.bert.model",
    "create_optimizer": "tf_finetune.training.optimizer",
    "ExperimentConfig": "tf_finetune.config",
    "InputError": "tf_finetune.errors",
    "check_data": "tf_finetune.commands.check_data",
    "train": "tf_finetune.commands.train",
    "find_learning_rate": "tf_finetune.commands.find_learning_rate",
    "cross_validate": "tf_finetune.commands.cross_validate",
    "sweep": "tf_finetune.commands.sweep",
    "evaluate": "tf_finetune.commands.evaluate",
    "report": "tf_finetune.commands.report",
    "predict": "tf_finetune.commands.predict",
    "compare": "tf_finetune.commands.compare",
    "drift": "tf_finetune.commands.drift",
    "export": "tf_finetune.commands.export",
    "verify": "tf_finetune.commands.verify",
    "dry_run": "tf_finetune.commands.dry_run",
    "push_to_hub": "tf_finetune.commands.push_to_hub",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tf_finetune' has no attribute {name!r}")
    if name.startswith("TF"):  # a .keras file of such a model may name our optimizer, which Keras then has to know
        importlib.import_module(_PUBLIC["create_optimizer"])
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
