"""What TensorFlow Serving is started with: configurations and a README beside the versions of an export.

The server takes folders named by an integer for versions and leaves everything else in the folder alone. Each
configuration is the text of a protocol buffer, and its comments say why a number is what it is.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tf_finetune import json_files
from tf_finetune.serving.server_readme import server_readme

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

MODELS, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"

# tensorflow.serving.ModelServerConfig, tensorflow_serving/config/model_server_config.proto
MODELS_CONFIG = """\
# What is served under which name. The base path is this folder as the container sees it.
# Without a model_version_policy the highest number is served, and a new version takes over as soon as it is loaded.
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
}}
"""

# tensorflow.serving.BatchingParameters, tensorflow_serving/servables/tensorflow/session_bundle_config.proto
BATCHING_CONFIG = """\
# How requests that come at the same time are computed together (--enable_batching).

# Texts computed at once. More share the work better on a GPU; on a CPU they mostly keep a short request waiting for
# the others. The graph sorts them by length and works in groups, so long texts do not make short ones expensive.
max_execution_batch_size { value: 64 }

# Texts in one request at most; a larger one is refused. It is split into batches of the size above.
max_batch_size { value: 1024 }
enable_large_batch_splitting { value: true }

# How long a batch may wait to be filled. A lone request is answered at once; under load batches fill by themselves,
# because requests wait for the threads anyway. On a GPU, some 2000 may give more answers a second.
batch_timeout_micros { value: 0 }

# 6,400 texts may wait; what comes on top is answered UNAVAILABLE at once, and may be sent to another server. The
# server's own number, 10 batches, could not take the largest request.
max_enqueued_batches { value: 100 }

# num_batch_threads is not set: the server then takes as many as it has processors. A number set here would be that of
# another machine.

# allowed_batch_sizes is not set: it rounds the size of a batch up by computing texts for nothing, which pays only where
# the graph is compiled for each size.

# Text needs no padding. Padding of the tokens signature would repeat the first value of each input, 1 for an
# attention_mask, and so give wrong answers; without it, requests of different lengths that meet fail instead.
pad_variable_length_inputs: false
"""

# tensorflow.serving.MonitoringConfig, tensorflow_serving/config/monitoring_config.proto
MONITORING_CONFIG = """\
# Counts and latencies for Prometheus, on the REST port.
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


def write_server_files(export: Path, run_name: str, classifier: "Classifier", *, pairs: bool) -> None:
    """Writes the configurations that are not there yet, for they may have been edited since, and the README anew.

    Args:
        export: the folder of the versions.
        run_name: what to call the model where no configuration names it yet.
        classifier: the checkpoint of the newest version; it answers the README's examples.
        pairs: whether a text comes with a second one.
    """
    name = _configured_name(export / MODELS) or model_name(run_name)
    configurations = {
        MODELS: MODELS_CONFIG.format(name=name),
        BATCHING: BATCHING_CONFIG,
        MONITORING: MONITORING_CONFIG,
    }
    for file, text in configurations.items():
        if not (export / file).exists():
            json_files.write_text(export / file, text)
    json_files.write_text(export / "README.md", server_readme(name, classifier, pairs=pairs))


def model_name(run_name: str) -> str:
    """A name that needs no quoting in a URL, a shell or a configuration."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", run_name).strip("_.-") or "model"


def _configured_name(models_config: Path) -> str | None:
    """The first model's name in a configuration that is there already: a run whose folder was renamed keeps it."""
    if not models_config.is_file():
        return None
    text = models_config.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"""^[^#\n]*?\bname:\s*["']([\w.-]+)["']""", text, flags=re.ASCII | re.MULTILINE)
    return found[1] if found else None
