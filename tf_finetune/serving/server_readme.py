"""The README beside the versions of an export: how to start a server with it, ask it and watch it."""

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tf_finetune.config import ProblemType
from tf_finetune.evaluation.metrics import THRESHOLD
from tf_finetune.serving import rest
from tf_finetune.serving.graph import text_inputs
from tf_finetune.serving.questions import token_inputs

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# One version for all who follow the README; `verify` holds an export to the operations this server has.
IMAGE = "tensorflow/serving:2.20.0"

EXAMPLES = ("This is exactly what I hoped for, thank you.", "It does not work, and nobody answers.")

README = """\
# {name} in TensorFlow Serving

`tf-finetune export` writes this file anew with every version. The `.config` files it writes once: they are yours to
edit.

## Start

In the folder of this file, which may be copied to any x86-64 machine with Docker:

```sh
docker run --rm -p 8500:8500 -p 8501:8501 -v "$PWD:/models/{name}:ro" {image} \\
  --model_config_file=/models/{name}/models.config --model_config_file_poll_wait_seconds=60 \\
  --enable_batching --batching_parameters_file=/models/{name}/batching.config \\
  --monitoring_config_file=/models/{name}/monitoring.config
```

On x86-64 without AVX-512 VNNI, `-e TF_ENABLE_ONEDNN_OPTS=1` after `docker run` may be faster: measure both.

The model is loaded when this says `AVAILABLE`:

```sh
curl http://localhost:8501/v1/models/{name}
```

## Ask by REST, port 8501

One entry an example:

```sh
curl -d {row} http://localhost:8501/v1/models/{name}:predict
```

It answers one entry an example, its numbers with more digits:

```json
{row_answer}
```

Or all examples of an input together, answered likewise:

```sh
curl -d {columns} http://localhost:8501/v1/models/{name}:predict
```

```json
{columns_answer}
```

{meaning}

The signature `tokens` takes what this model's own tokenizer gives, padded to one length with an `attention_mask` of 0,
and answers with {token_outputs}:

```sh
curl -d {tokens} http://localhost:8501/v1/models/{name}:predict
```

Requests that come together are computed together (`--enable_batching`), and those for `tokens` must then all have the
same length; else they fail, saying that their shapes differ. Pad all to {max_length}, or start the server without the
line of `--enable_batching`. Text may be of any length, mixed as it comes.

## Ask by gRPC, port 8500

After `pip install tensorflow-serving-api`:

```python
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

server = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel("localhost:8500"))
request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
{grpc_inputs}
response = server.Predict(request, timeout=10)
answers = {{key: tf.make_ndarray(tensor) for key, tensor in response.outputs.items()}}
{grpc_print}
```

## Watch

```sh
curl http://localhost:8501/monitoring/prometheus/metrics
```

Prometheus reads it from there: `:tensorflow:serving:request_count` by model and status,
`:tensorflow:serving:request_latency` in microseconds.

## New and earlier versions

The server looks for new versions each second, loads the highest number beside the one it serves and then changes over,
so for a moment it holds both in memory. To go back to version 1, add this to the model's `config` in `models.config`;
the server reads the file again within a minute, and stays with that version until the line is taken out.

```text
model_version_policy {{ specific {{ versions: 1 }} }}
```

`/v1/models/{name}/versions/1:predict` asks one of several versions that are served.
"""

LABEL_ORDER = """\
`{labels}` {what}, and `probabilities` has one number a class, in this order:

```json
{names}
```"""

GRPC_PRINT = {
    ProblemType.SINGLE_LABEL_CLASSIFICATION: """\
for label, score in zip(answers["label"], answers["score"]):
    print(label.decode(), score)""",
    ProblemType.MULTI_LABEL_CLASSIFICATION: """\
for labels in answers["labels"]:
    print([label.decode() for label in labels if label])""",
    ProblemType.REGRESSION: """\
print(answers["score"].tolist())""",
}


def server_readme(name: str, classifier: "Classifier", *, pairs: bool) -> str:
    """The text of the README.

    Args:
        name: of the model, safe in a URL and a shell.
        classifier: answers the examples.
        pairs: whether a text comes with a second one.
    """
    inputs = dict(zip(text_inputs(pairs), (EXAMPLES, EXAMPLES[::-1]), strict=False))
    tokens = token_inputs(*classifier.encode(*inputs.values()))
    answers = _served(classifier, list(inputs.values()))
    is_regression = classifier.problem_type is ProblemType.REGRESSION
    grpc_inputs = [
        f'request.inputs["{key}"].CopyFrom(tf.make_tensor_proto({json.dumps(texts)}))' for key, texts in inputs.items()
    ]
    return README.format(
        name=name,
        image=IMAGE,
        row=shlex.quote(rest.request_body(inputs, row=True)),
        row_answer=rest.response_body(answers, row=True),
        columns=shlex.quote(rest.request_body(inputs, row=False)),
        columns_answer=rest.response_body(answers, row=False),
        meaning=_meaning(classifier),
        tokens=shlex.quote(rest.request_body(tokens, signature="tokens", row=False)),
        token_outputs="`logits`" if is_regression else "`logits` and `probabilities`",
        max_length=classifier.max_length,
        grpc_inputs="\n".join(grpc_inputs),
        grpc_print=GRPC_PRINT[classifier.problem_type],
    )


def _served(classifier: "Classifier", texts: list[Sequence[str]]) -> dict[str, list]:
    """What the export answers for the examples, by output."""
    answers = list(classifier.answers(*texts))
    if classifier.problem_type is ProblemType.REGRESSION:
        return {"score": [round(answer["score"], 4) for answer in answers]}
    probabilities = [[round(p, 4) for p in answer["probabilities"].values()] for answer in answers]
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        names = classifier.label_names
        labels = [[name if name in answer["labels"] else "" for name in names] for answer in answers]
        return {"labels": labels, "probabilities": probabilities}
    return {
        "label": [answer["label"] for answer in answers],
        "score": [round(answer["score"], 4) for answer in answers],
        "probabilities": probabilities,
    }


def _meaning(classifier: "Classifier") -> str:
    if classifier.problem_type is ProblemType.REGRESSION:
        return "An answer is the number itself."
    if classifier.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
        labels, what = "labels", f'names the classes of at least {THRESHOLD}, with `""` in the place of the others'
    else:
        labels, what = "label", "is the likeliest class, `score` its probability"
    return LABEL_ORDER.format(labels=labels, what=what, names=_json(classifier.label_names))


def _json(value: Any) -> str:
    """On one line, where no label can end the block it stands in."""
    return json.dumps(value, ensure_ascii=False)
