"""`tf-finetune push-to-hub`: the best checkpoint and a model card, as a repository on the Hugging Face hub."""

import json
import re
from pathlib import Path
from typing import Any

from tf_finetune import hub, settings
from tf_finetune.config import ExperimentConfig, Truncation
from tf_finetune.errors import InputError
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

CARD = """\
---
{metadata}
---

# {name}

A BERT classifier of {kind}, fine-tuned with tf_finetune (TensorFlow and Keras 3).

- labels: {labels}
- trained on: {data}
- started from: {base}
- texts: at most {max_length} tokens, [CLS] and [SEP] included; of longer ones {kept} is kept
{results}
## Use

With PyTorch:

```python
from transformers import pipeline

classify = pipeline("text-classification", model="{repo_id}", truncation=True, max_length={max_length})
print(classify({example}))
```

With TensorFlow:

```python
from tf_finetune.config import Truncation
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.pretrained import local_checkpoint

folder = local_checkpoint("{repo_id}")
classifier = Classifier.from_checkpoint(folder, max_length={max_length}, truncation=Truncation.{truncation})
print(list(classifier.answers({answered})))
```
"""


def push_to_hub(workdir: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Uploads the best checkpoint with a model card, in one commit; files of other names stay as they are.

    Args:
        workdir: of a training run; its evaluation.json, when it is there, goes into the card.
        repo_id: `OWNER/NAME`; made when it is not there.
        private: nobody else may see it.

    Returns:
        The address of the repository.

    Raises:
        InputError: no trained model, no token, not a name, refused, or a public repository where a private one
            was asked for.
        HubUnreachable: no connection.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    run = Workdir(workdir)
    folder = run.best_checkpoint()
    config = settings.load_json(run.config)
    if repo_id.count("/") != 1:
        raise InputError("not a name on the hub", where="--repo", expected="OWNER/NAME", got=repo_id)
    if get_token() is None:
        raise InputError("no token for the hub", where=repo_id, expected=hub.LOG_IN)
    card = model_card(repo_id, config, _labels(folder), _evaluation(run))
    _create(repo_id, private=private)
    weights = hub.weight_files([path.name for path in folder.iterdir()])
    files = [folder / name for name in ("config.json", *hub.TOKENIZER, *weights) if (folder / name).is_file()]
    additions = [CommitOperationAdd("README.md", card.encode())]
    additions += [CommitOperationAdd(file.name, str(file)) for file in files]
    with hub.named_faults(repo_id, "model"):
        HfApi().create_commit(repo_id, additions, commit_message=f"{folder.name}, by tf_finetune")
    address = f"{constants.ENDPOINT}/{repo_id}"
    print(f"pushed {folder} to {address}")
    return address


def _create(repo_id: str, *, private: bool) -> None:
    from huggingface_hub import HfApi

    try:
        info = hub.repository_info(repo_id)
    except hub.NotOnHub:
        with hub.named_faults(repo_id, "model"):
            HfApi().create_repo(repo_id, private=private, exist_ok=True)
        return
    if private and not info.private:
        raise InputError("the repository is public", where=repo_id, expected="a new name, or no --private")


def model_card(repo_id: str, config: ExperimentConfig, labels: list[str], evaluation: dict[str, Any]) -> str:
    """The README.md of the repository: what the model is, how good it is, how to use it.

    Args:
        repo_id: `OWNER/NAME`.
        config: of the training run.
        labels: in the order of the logits.
        evaluation: the content of evaluation.json; may be empty.
    """
    from huggingface_hub import ModelCardData

    base, (data, dataset) = _base_model(config.model.checkpoint), _data(config.data.source)
    name = repo_id.partition("/")[2]
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=base,
        datasets=[dataset] if dataset else None,
        metrics=_measured(evaluation) or None,
        model_name=name,
        eval_results=_eval_results(evaluation) or None,
    )
    pairs = bool(config.data.text_pair_column)
    kept = {
        Truncation.HEAD: "the start",
        Truncation.TAIL: "the end",
        Truncation.HEAD_TAIL: "the start (a quarter) and the end (the rest)",
    }[config.data.truncation]
    return CARD.format(
        metadata=metadata.to_yaml(),
        name=name,
        labels=", ".join(labels),
        kind="pairs of texts" if pairs else "texts",
        example='{"text": "...", "text_pair": "..."}' if pairs else '"..."',
        answered='["..."], ["..."]' if pairs else '["..."]',
        data=data,
        base=base or _last_part(config.model.checkpoint),
        max_length=config.data.max_length,
        kept=kept,
        results=_table(evaluation),
        repo_id=repo_id,
        truncation=config.data.truncation.name,
    )


def _eval_results(evaluation: dict[str, Any]) -> list:
    from huggingface_hub import EvalResult

    results = []
    for split, numbers in evaluation.items():
        name, dataset = _data(numbers["source"])
        for metric, title in METRICS.items():
            if numbers.get(metric) is not None:
                result = EvalResult(
                    task_type="text-classification",
                    dataset_type=dataset or name,
                    dataset_name=name,
                    dataset_split=split,
                    metric_type=metric,
                    metric_name=title,
                    metric_value=round(numbers[metric], 4),
                )
                results.append(result)
    return results


def _measured(evaluation: dict[str, Any]) -> list[str]:
    return [metric for metric in METRICS if any(metric in numbers for numbers in evaluation.values())]


def _table(evaluation: dict[str, Any]) -> str:
    if not evaluation:
        return ""
    metrics = _measured(evaluation)
    titles = " | ".join(METRICS[metric] for metric in metrics)
    lines = ["", f"| split | examples | {titles} |", "|---" * (len(metrics) + 2) + "|"]
    for split, numbers in evaluation.items():
        cells = ["-" if numbers.get(metric) is None else f"{numbers[metric]:.4f}" for metric in metrics]
        lines.append(f"| {split} of {_data(numbers['source'])[0]} | {numbers['examples']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _labels(checkpoint: Path) -> list[str]:
    names = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["id2label"]
    return [names[index] for index in sorted(names, key=int)]


def _evaluation(run: Workdir) -> dict[str, Any]:
    return json.loads(run.evaluation.read_text(encoding="utf-8")) if run.evaluation.is_file() else {}


def _base_model(checkpoint: str) -> str | None:
    """The hub name that training started from; None for folders and packages."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+|[\w.-]+(?=@))(@.+)?", checkpoint)
    return match[1] if match else None


def _data(source: str) -> tuple[str, str | None]:
    """The data for a reader who has not this machine's folders, and its name on the hub if it has one."""
    if source == "imdb":
        return "stanfordnlp/imdb", "stanfordnlp/imdb"
    if source.startswith("hub:"):
        return source.removeprefix("hub:"), re.split("[:@]", source)[1]
    if source == "reviews":
        return "movie reviews (the sentences packaged with vaderSentiment)", None
    if source.startswith("tfds:"):
        return f"{source.removeprefix('tfds:')} of TensorFlow Datasets", None
    return ", ".join(map(_last_part, source.split(","))), None


def _last_part(path: str) -> str:
    """A file's or folder's name without the folders of the machine it lies on; a package stays whole."""
    return path if path.startswith("pypi:") else Path(path).name
