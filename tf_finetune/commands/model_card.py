"""A model card in the form of the Hugging Face hub, filled from a run."""

from typing import Any

from tf_finetune.commands.description import METRICS, base_model, data_name, description, literal, measured
from tf_finetune.config import ExperimentConfig

CARD = """\
---
{metadata}
---

# {name}

{description}{limits}
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


def model_card(
    repo_id: str,
    config: ExperimentConfig,
    labels: list[str],
    evaluation: dict[str, Any],
    temperature: float = 1.0,
    report: dict[str, Any] | None = None,
) -> str:
    """The README.md of a repository: what the model is, how good it is, where it fails, how to use it.

    Args:
        repo_id: `OWNER/NAME`.
        config: of the training run.
        labels: in the order of the logits.
        evaluation: the content of evaluation.json; may be empty.
        temperature: of `Classifier.from_checkpoint`; PyTorch's pipeline knows none.
        report: the content of report.json, if there is one.
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
        limits=_limits(report["summary"]) if report else "",
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


def evaluation_in(report: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a report in the form of evaluation.json."""
    source = report["run"]["config"]["data"]["source"]
    return {name: {"source": source, **split["metrics"]} for name, split in report["results"]["splits"].items()}


def _limits(summary: dict[str, Any]) -> str:
    """What a report says first, but for what has words of the data in it."""
    lines = [f"- {literal(sentence)}" for sentence in (summary["headline"], *summary["sentences"])]
    return "\n".join(["", "## How good it is, and where it fails", "", *lines, ""])
