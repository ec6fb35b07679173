"""`tf-finetune push-to-hub`: the best checkpoint and a model card, as a repository on the Hugging Face hub."""

from pathlib import Path
from typing import Any

from tf_finetune import hub, settings
from tf_finetune.commands.description import (
    METRICS,
    base_model,
    data_name,
    description,
    evaluation_of,
    label_names,
    measured,
)
from tf_finetune.commands.restore import temperature_of
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError
from tf_finetune.workdir import Workdir

CARD = """\
---
{metadata}
---

# {name}

{description}
## Use

With PyTorch{undivided}:

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
classifier = Classifier.from_checkpoint(
    folder, max_length={max_length}, truncation=Truncation.{truncation}, temperature={temperature}
)
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
    card = model_card(repo_id, config, label_names(folder), evaluation_of(run), temperature_of(folder))
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


def model_card(
    repo_id: str, config: ExperimentConfig, labels: list[str], evaluation: dict[str, Any], temperature: float = 1.0
) -> str:
    """The README.md of the repository: what the model is, how good it is, how to use it.

    Args:
        repo_id: `OWNER/NAME`.
        config: of the training run.
        labels: in the order of the logits.
        evaluation: the content of evaluation.json; may be empty.
        temperature: of `Classifier.from_checkpoint`; PyTorch's pipeline knows none.
    """
    from huggingface_hub import ModelCardData

    _, dataset = data_name(config.data.source)
    name = repo_id.partition("/")[2]
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=base_model(config.model.checkpoint),
        datasets=[dataset] if dataset else None,
        metrics=measured(evaluation) or None,
        model_name=name,
        eval_results=_eval_results(evaluation) or None,
    )
    pairs = bool(config.data.text_pair_column)
    return CARD.format(
        metadata=metadata.to_yaml(),
        name=name,
        description=description(config, labels, evaluation, temperature),
        temperature=temperature,
        undivided="" if temperature == 1 else ", whose probabilities are of undivided logits",
        example='{"text": "...", "text_pair": "..."}' if pairs else '"..."',
        answered='["..."], ["..."]' if pairs else '["..."]',
        max_length=config.data.max_length,
        repo_id=repo_id,
        truncation=config.data.truncation.name,
    )


def _eval_results(evaluation: dict[str, Any]) -> list:
    from huggingface_hub import EvalResult

    results = []
    for split, numbers in evaluation.items():
        name, dataset = data_name(numbers["source"])
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
