"""An export that answers for texts as its checkpoint does, in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tf_finetune.config import ProblemType
from tf_finetune.serving.export import description
from tf_finetune.serving.graph import text_inputs


class Exported:
    """`serving_default` of an export.

    Args:
        saved_model: one version.

    Raises:
        InputError: the folder is no export.
    """

    def __init__(self, saved_model: Path):
        self.task = description(saved_model).task
        import tensorflow as tf
        import tensorflow_text  # noqa: F401 - the graph needs its operations

        self._loaded = tf.saved_model.load(str(saved_model))  # kept: a signature does not keep its variables
        self._answer = self._loaded.signatures["serving_default"]

    def answers(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """What `evaluation.classifier.Classifier.answers` says of each text or pair."""
        import tensorflow as tf

        names = text_inputs(self.task.pairs)
        asked = dict(zip(names, (texts,) if pairs is None else (texts, pairs), strict=True))
        encoded = {name: [text.encode("utf-8", "surrogatepass") for text in side] for name, side in asked.items()}
        answer = self._answer(**{name: tf.constant(side, tf.string) for name, side in encoded.items()})
        columns = {name: value.numpy() for name, value in answer.items()}
        for index in range(len(texts)):
            of_text = {name: column[index] for name, column in columns.items()}
            yield {name: side[index] for name, side in asked.items()} | self._plain(of_text)

    def _plain(self, answer: dict[str, Any]) -> dict[str, Any]:
        if self.task.problem_type is ProblemType.REGRESSION:
            return {"score": float(answer["score"])}
        probabilities = dict(zip(self.task.label_names, answer["probabilities"].tolist(), strict=True))
        if self.task.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
            labels = [label.decode() for label in answer["labels"] if label]
            return {"labels": labels, "probabilities": probabilities}
        return {"label": answer["label"].decode(), "score": float(answer["score"]), "probabilities": probabilities}
