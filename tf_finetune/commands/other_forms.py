"""The forms that `export` writes beside the SavedModel where the config asks: LiteRT and ONNX, each compared."""

import importlib.util
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_finetune import json_files, runtime
from tf_finetune.commands.evaluate import compared_examples
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.data.examples import Examples
from tf_finetune.errors import InputError, RunError
from tf_finetune.evaluation.metrics import headline, metrics_of
from tf_finetune.serving.answers import TOLERANCE
from tf_finetune.serving.comparison import Comparison, compare, table
from tf_finetune.serving.export import next_version
from tf_finetune.workdir import MANIFEST, Workdir, published_folder, read_manifest

if TYPE_CHECKING:
    from tf_finetune.data.tokenized import TokenizedExamples
    from tf_finetune.evaluation.classifier import Classifier

# Fields of the config, and the packages that each needs: as they are imported, and as pip knows them.
NEEDED = {"litert": {"ai_edge_litert": "ai-edge-litert"}, "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime"}}
LITERT = "model.tflite"
MOST_LOST = 1.0  # points of accuracy, or percent of the squared error, beyond which an int8 form is warned of
# Both formats keep everything in one message, whose sizes are 31 bits.
LARGEST_BYTES = 2**31 - 2**20

Logits = Callable[[dict[str, np.ndarray]], np.ndarray]


def check_packages(config: ExperimentConfig) -> None:
    """Raises InputError where a form is asked for whose packages are not installed."""
    for form, packages in NEEDED.items():
        missing = [pip for module, pip in packages.items() if importlib.util.find_spec(module) is None]
        if getattr(config.export, form) and missing:
            raise InputError(
                f"this form needs {' and '.join(missing)}, not installed here",
                where=f"export.{form}",
                expected=f"pip install {' '.join(missing)}",
            )


def examples_for_forms(
    config: ExperimentConfig, checkpoint: Path, classifier: "Classifier", run: Workdir
) -> tuple[Examples, str] | None:
    """What the forms will be compared on, as `compared_examples` gives it; None where no form is asked for.

    Raises:
        InputError: the model is too large for a form, or there is nothing to compare with.
    """
    if not any(getattr(config.export, form) for form in NEEDED):
        return None
    if (size := _size(classifier)) > LARGEST_BYTES:
        expected, got = f"at most {LARGEST_BYTES / 1e9:.2f} GB", f"{size / 1e9:.2f} GB"
        raise InputError("the model is too large for LiteRT and ONNX", where=checkpoint, expected=expected, got=got)
    return compared_examples(config, checkpoint, run)


def write_other_forms(
    workdir: str | Path,
    config: ExperimentConfig,
    checkpoint: Path,
    classifier: "Classifier",
    compared_on: tuple[Examples, str] | None = None,
) -> list[Path]:
    """Writes `workdir/litert/N` and `workdir/onnx/N` where the config asks for them, N the next free integer.

    Args:
        workdir: of the run.
        config: says which.
        checkpoint: the folder the classifier was read from.
        classifier: float32.
        compared_on: what `examples_for_forms` gave; None means to ask it.

    Returns:
        The folders written.

    Raises:
        InputError: a package is missing, there is nothing to compare with, or the model is too large.
        RunError: the float32 ONNX does not answer as the checkpoint does; it is not published.
    """
    check_packages(config)
    compared_on = compared_on or examples_for_forms(config, checkpoint, classifier, Workdir(workdir))
    if compared_on is None:
        return []
    size, split, examples = _size(classifier), compared_on[1], classifier.tokenize(compared_on[0])
    expected, written = classifier.logits_of(examples), []
    quality = headline(metrics_of(expected, examples.labels, classifier.problem_type))

    def compared(path: Path, logits: Logits) -> Comparison:
        return compare(
            path.name,
            _logits_of(logits, examples, classifier),
            expected,
            examples.labels,
            classifier.problem_type,
            size=path.stat().st_size,
            float32_size=size,
        )

    for form, write in (("litert", _write_litert), ("onnx", _write_onnx)):
        if not getattr(config.export, form):
            continue
        target = next_version(Workdir(workdir).path / form)
        with published_folder(target) as aside:
            comparisons = write(aside, classifier, compared)
            print(f"{form}, compared with the checkpoint on {len(examples)} examples of {split}")
            print("\n".join(table(comparisons, quality)))
            _judge(comparisons, classifier.problem_type)
            classifier.tokenizer.save_pretrained(aside)
            shutil.copyfile(checkpoint / "config.json", aside / "config.json")
            kept = {name: value for name, value in read_manifest(checkpoint).items() if name != "temperature"}
            json_files.write(aside / f"checkpoint_{MANIFEST}", kept)  # the form's head is divided by it already
        print(f"exported to {target}")
        written.append(target)
    return written


def _write_litert(folder: Path, classifier: "Classifier", compared: Callable) -> list[Comparison]:
    from tf_finetune.serving.litert import litert_logits, save_litert

    with runtime.quietly():  # the one may speak of its options, the other announces that its operations are fast
        save_litert(classifier.model, folder / LITERT)
        logits = litert_logits(folder / LITERT, num_threads=os.cpu_count())
    return [compared(folder / LITERT, logits)]


def _write_onnx(folder: Path, classifier: "Classifier", compared: Callable) -> list[Comparison]:
    from tf_finetune.serving.onnx_files import FLOAT32, INT8, onnx_logits, save_onnx

    save_onnx(classifier.model, folder)
    float32 = compared(folder / FLOAT32, onnx_logits(folder / FLOAT32))
    if not float32.difference <= TOLERANCE:
        difference = f"{float32.difference:.1e} away where at most {TOLERANCE:.0e} was expected"
        raise RunError(f"{FLOAT32} does not answer as the checkpoint does: {difference}; it is not published")
    return [float32, compared(folder / INT8, onnx_logits(folder / INT8))]


def _judge(comparisons: list[Comparison], problem_type: ProblemType) -> None:
    """Warns of a form that lost too much."""
    unit = "percent of the squared error" if problem_type is ProblemType.REGRESSION else "points"
    for one in comparisons:
        if not one.lost <= MOST_LOST:
            runtime.warn(f"{one.form} is {one.lost:.1f} {unit} worse than the checkpoint: {one.quality}")


def _logits_of(logits: Logits, examples: "TokenizedExamples", classifier: "Classifier") -> np.ndarray:
    """Logits (examples, num_labels) in the order of the examples, of batches padded to their own longest."""
    from tf_finetune.data.order import evaluation_order
    from tf_finetune.data.pipeline import batches

    result = np.zeros((len(examples), len(classifier.label_names)), np.float32)
    order = evaluation_order(examples.lengths, batch_size=classifier.batch_size)
    start = 0
    for inputs, *_ in batches(examples, order).as_numpy_iterator():
        rows = order.examples[start : start + len(inputs["input_ids"])]
        result[rows] = logits(inputs)
        start += len(rows)
    return result


def _size(classifier: "Classifier") -> int:
    """Bytes of its weights in float32."""
    return 4 * sum(math.prod(weight.shape) for weight in classifier.model.weights)
