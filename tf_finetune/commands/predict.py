"""`tf-finetune predict`: one answer a text."""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig
from tf_finetune.data import sources

# Texts read before any is answered: enough to batch by length, little enough to stream.
CHUNK = 1024


def predict(
    workdir: str | Path, texts: Iterable[str], config: ExperimentConfig | None = None
) -> Iterator[dict[str, Any]]:
    """Classifies texts in float32, in their order.

    Args:
        workdir: of a training run.
        texts: read as they are needed, so a stream may be of any length.
        config: the run's config with another train.eval_batch_size; None means the run's own.

    Yields:
        `{"text", "label", "score", "probabilities": {name: p}}` for each text.

    Raises:
        InputError: no trained model there.
    """
    folder, config = trained_run("predict", workdir, config)
    texts = iter(texts)
    chunk = list(islice(texts, CHUNK))  # a file's faults show before TensorFlow is imported
    classifier = load_classifier(folder, config)
    while chunk:
        yield from classifier.answers(chunk)
        chunk = list(islice(texts, CHUNK))


def read_texts(path: str | None, config: ExperimentConfig) -> Iterator[str]:
    """The texts of a file, or the lines of standard input where there is none."""
    if path is not None:
        return sources.texts(Path(path).expanduser(), config.data.text_column)
    if sys.stdin.isatty():
        print("reading texts from standard input, one a line; Ctrl-D ends them", file=sys.stderr)
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return (line.rstrip("\n") for line in sys.stdin)
