"""What a model card says of a trained model: what it answers, what it was made of, how good it is."""

import re
from pathlib import Path
from typing import Any

from tf_finetune import json_files
from tf_finetune.commands import continual
from tf_finetune.commands.restore import temperature_of
from tf_finetune.config import ExperimentConfig, Truncation
from tf_finetune.readers import reviews
from tf_finetune.workdir import Workdir

# Names of the metrics in evaluation.json -> those the hub shows.
# Those that the kind of labels has are in the card.
METRICS = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mean_absolute_error": "Mean absolute error",
}

DESCRIPTION = """\
A BERT classifier of {kind}, fine-tuned with tf_finetune (TensorFlow and Keras 3).

- labels: {labels}
- trained on: {data}
- started from: {base}
- texts: at most {max_length} tokens, [CLS] and [SEP] included; of longer ones {kept} is kept
{probabilities}{results}"""

CALIBRATED = """\
- probabilities: with logits divided by {temperature:.4g}, a temperature fitted on validation
"""

EXPORT_CARD = """\
# {name}, version {version}

{description}
This is a SavedModel of {checkpoint}. The README beside the versions says how to serve and ask it.
"""


def export_card(run: Workdir, config: ExperimentConfig, checkpoint: Path, *, version: str) -> str:
    """The card inside of an export, which stays with it wherever it is copied to."""
    return EXPORT_CARD.format(
        name=run.path.resolve().name,
        version=version,
        description=description(config, label_names(checkpoint), evaluation_of(run), temperature_of(checkpoint)),
        checkpoint=checkpoint.name,
    )


def description(
    config: ExperimentConfig, labels: list[str], evaluation: dict[str, Any], temperature: float = 1.0
) -> str:
    """Facts in Markdown, with a table of results where there are any.

    Args:
        config: of the training run.
        labels: in the order of the logits.
        evaluation: the content of evaluation.json; may be empty.
        temperature: that answers are calibrated with; 1 where there is none.
    """
    kept = {
        Truncation.HEAD: "the start",
        Truncation.TAIL: "the end",
        Truncation.HEAD_TAIL: "the start (a quarter) and the end (the rest)",
    }[config.data.truncation]
    return DESCRIPTION.format(
        kind="pairs of texts" if config.data.text_pair_column else "texts",
        labels=", ".join(map(literal, labels)),
        data=data_name(config.data.source)[0],
        base=base_model(config.model.checkpoint) or _last_part(continual.run_or_name(config.model.checkpoint)),
        max_length=config.data.max_length,
        kept=kept,
        probabilities="" if temperature == 1 else CALIBRATED.format(temperature=temperature),
        results=_table(evaluation),
    )


def literal(name: str) -> str:
    """A label on one line, with nothing that Markdown or HTML would take for its own."""
    return re.sub(r"([\\`*\[\]<>|~&])", r"\\\1", " ".join(name.split()))


def measured(evaluation: dict[str, Any]) -> list[str]:
    """The metrics that any split has."""
    return [metric for metric in METRICS if any(metric in numbers for numbers in evaluation.values())]


def _table(evaluation: dict[str, Any]) -> str:
    if not evaluation:
        return ""
    metrics = measured(evaluation)
    titles = " | ".join(METRICS[metric] for metric in metrics)
    lines = ["", f"| split | examples | {titles} |", "|---" * (len(metrics) + 2) + "|"]
    for split, numbers in evaluation.items():
        cells = ["-" if numbers.get(metric) is None else f"{numbers[metric]:.4f}" for metric in metrics]
        lines.append(f"| {split} of {data_name(numbers['source'])[0]} | {numbers['examples']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def label_names(checkpoint: Path) -> list[str]:
    """In the order of the logits."""
    names = json_files.read_object(checkpoint / "config.json")["id2label"]
    return [names[index] for index in sorted(names, key=int)]


def evaluation_of(run: Workdir) -> dict[str, Any]:
    """What evaluation.json says of the run's model, which goes when another checkpoint is the best; empty without."""
    found = json_files.read_object(run.evaluation) if run.evaluation.is_file() else {}
    return {split: numbers for split, numbers in found.items() if split != "old_test_before"}


def base_model(checkpoint: str) -> str | None:
    """The hub name that training started from; None for folders and packages."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+|[\w.-]+(?=@))(@.+)?", checkpoint)
    return match[1] if match else None


def data_name(source: str) -> tuple[str, str | None]:
    """The data for a reader who has not this machine's folders, and its name on the hub if it has one."""
    if source == "imdb":
        return "stanfordnlp/imdb", "stanfordnlp/imdb"
    if source.startswith("hub:"):
        return source.removeprefix("hub:"), re.split("[:@]", source)[1]
    if source in reviews.FILES:
        name = "movie reviews" if source == "reviews" else "product reviews"
        return f"{name} (the sentences packaged with vaderSentiment)", None
    if source.startswith("tfds:"):
        return f"{source.removeprefix('tfds:')} of TensorFlow Datasets", None
    return ", ".join(map(_last_part, source.split(","))), None


def _last_part(path: str) -> str:
    """A file's or folder's name without the folders of the machine it lies on; a package stays whole."""
    return path if path.startswith("pypi:") else Path(path).name
