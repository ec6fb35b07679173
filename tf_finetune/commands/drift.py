"""`tf-finetune drift`: does new text still look like what the model was measured on?"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune import json_files, runtime, settings
from tf_finetune.commands import drift_words
from tf_finetune.commands.check_data import UNCUT
from tf_finetune.commands.drift_words import Compared, Property
from tf_finetune.commands.evaluate import held_out, load_splits, warn_if_changed
from tf_finetune.commands.predict import read_texts
from tf_finetune.commands.restore import load_classifier, trained_run
from tf_finetune.config import ExperimentConfig, ProblemType, Truncation
from tf_finetune.data.examples import Examples
from tf_finetune.errors import Found, InputError
from tf_finetune.evaluation import drift as statistics
from tf_finetune.evaluation.intervals import holm
from tf_finetune.evaluation.metrics import THRESHOLD, probabilities_of
from tf_finetune.workdir import Workdir

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# Texts drawn of either side: a drift worth a word stands out among as many, and no scheduler waits for 25,000 answers.
MOST_TEXTS = 2000

# What was measured of each text of a sample, by property: numbers, or the names of classes.
Measured = dict[Property, np.ndarray | list[str]]


@dataclasses.dataclass(frozen=True)
class Report:
    """What was compared, and what came of it.

    Attributes:
        workdir: of the run.
        split: of the run's data, the reference.
        reference_texts: that were asked.
        data: the file of new texts.
        new_texts: that were asked.
        new_texts_in_all: of which they were drawn.
        properties: in the order of the table.
    """

    workdir: Path
    split: str
    reference_texts: int
    data: str
    new_texts: int
    new_texts_in_all: int
    properties: tuple[Compared, ...]

    @property
    def verdict(self) -> statistics.Verdict:
        return statistics.worst([compared.verdict for compared in self.properties])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict.value,
            "reference": {"workdir": str(self.workdir), "split": self.split, "texts": self.reference_texts},
            "new": {"source": self.data, "texts": self.new_texts, "texts_in_all": self.new_texts_in_all},
            "properties": {compared.property.name: compared.to_dict() for compared in self.properties},
        }


def drift(reference: str | Path, data: str | Path, config: ExperimentConfig | None = None) -> dict[str, Any]:
    """Compares new texts, and the model's answers to them in float32, with the run's test split, else validation.

    The training split is no reference: a model is surer of texts that it was trained on. Of either side MOST_TEXTS are
    drawn at most. Writes nothing, and prints what the splits' notes are.

    Args:
        reference: the workdir of a training run.
        data: a table with the run's text columns, or a file with one text a line; labels are not read.
        config: the run's config with other text columns; None means the run's own.

    Returns:
        verdict ("stable", "moderate" or "major"), reference and new (how many texts of what), and properties, by name:
        tokens, unknown_tokens, predicted_class (or predicted_number) and confidence, each with the means, PSI,
        Jensen-Shannon divergence, their intervals, p-value, verdict and counts by bin.

    Raises:
        InputError: no trained model there, no such data, or fewer than `evaluation.drift.FEWEST_TEXTS` texts on a side.
    """
    return _report(reference, data, config).to_dict()


def run(
    reference: str | Path,
    data: str | Path,
    config: ExperimentConfig | None = None,
    *,
    json_file: str | Path | None = None,
) -> None:
    """Prints the report, and writes it as JSON where a file is named.

    Raises:
        Found: a property has drifted, moderately or more.
        InputError: what `drift` raises.
    """
    report = _report(reference, data, config)
    if json_file is not None:
        json_files.write(Path(json_file).expanduser(), report.to_dict())
    of_all = f" of {report.new_texts_in_all}" * (report.new_texts < report.new_texts_in_all)
    runtime.say(f"reference: the {report.split} split of {report.workdir}, {report.reference_texts} texts")
    runtime.say(f"new: {report.data}, {report.new_texts}{of_all} texts")
    for line in drift_words.lines(report.properties, split=report.split, workdir=report.workdir):
        runtime.say(line)
    if report.verdict is not statistics.Verdict.STABLE:
        raise Found(f"{report.verdict.value} drift")


def _report(reference: str | Path, data: str | Path, config: ExperimentConfig | None) -> Report:
    checkpoint, config = trained_run("drift", reference, config)
    run = Workdir(reference)
    trained = settings.load_json(run.config)  # whose columns the reference has, whichever the new texts have
    new = _new_texts(data, config)
    splits = load_splits(trained, checkpoint, run)
    split = held_out(splits)
    _check_enough(splits[split], f"the {split} split of {run.path}")
    classifier = load_classifier(checkpoint, config)
    warn_if_changed(checkpoint, classifier, splits, counts=not trained.data.replay)
    sides = [examples.drawn(MOST_TEXTS, config.runtime.seed) for examples in (splits[split], new)]
    return Report(
        workdir=run.path,
        split=split,
        reference_texts=len(sides[0]),
        data=str(data),
        new_texts=len(sides[1]),
        new_texts_in_all=len(new),
        properties=_compared(*(_measured(classifier, side) for side in sides), seed=config.runtime.seed),
    )


def _new_texts(data: str | Path, config: ExperimentConfig) -> Examples:
    read = list(read_texts(str(data), config))
    if config.data.text_pair_column:
        new = Examples.unlabelled([text for text, _ in read], [pair for _, pair in read])
    else:
        new = Examples.unlabelled(read)
    _check_enough(new, data)
    return new


def _check_enough(examples: Examples, where: object) -> None:
    if len(examples) < statistics.FEWEST_TEXTS:
        expected = f"{statistics.FEWEST_TEXTS} or more"
        raise InputError("too few texts to tell drift from chance", where=where, expected=expected, got=len(examples))


def _measured(classifier: "Classifier", examples: Examples) -> Measured:
    token_ids = _uncut(classifier, examples)
    special = 2 if examples.text_pairs is None else 3
    unknown = classifier.tokenizer.unknown_id
    measured: Measured = {
        drift_words.TOKENS: np.array([len(ids) for ids in token_ids], np.float64),
        drift_words.UNKNOWN: np.array([ids.count(unknown) / max(len(ids) - special, 1) for ids in token_ids]),
    }
    logits = classifier.logits_of(classifier.tokenize(examples))
    if classifier.problem_type is ProblemType.REGRESSION:
        return measured | {drift_words.NUMBER: logits[:, 0].astype(np.float64)}
    probabilities = probabilities_of(logits, classifier.problem_type)
    classes = _answered(probabilities, classifier.label_names, classifier.problem_type)
    return measured | {drift_words.CLASS: classes, drift_words.CONFIDENCE: probabilities.max(axis=-1)}


def _uncut(classifier: "Classifier", examples: Examples) -> list[list[int]]:
    """Token ids as they would be without data.max_length, because what is cut off may be what has changed."""
    options = {"max_length": UNCUT, "truncation": Truncation.HEAD}
    texts = list(examples.texts)
    if examples.text_pairs is None:
        return classifier.tokenizer.encode(texts, **options)
    return classifier.tokenizer.encode_pairs(texts, list(examples.text_pairs), **options)[0]


def _answered(probabilities: np.ndarray, names: Sequence[str], problem_type: ProblemType) -> list[str]:
    """The class of each text; of several labels a text all of them together, because each text counts once."""
    if problem_type is not ProblemType.MULTI_LABEL_CLASSIFICATION:
        return [names[index] for index in probabilities.argmax(axis=-1)]
    chosen = ([name for name, p in zip(names, row, strict=True) if p >= THRESHOLD] for row in probabilities)
    return [", ".join(labels) or "no label" for labels in chosen]


def _compared(reference: Measured, new: Measured, *, seed: int) -> tuple[Compared, ...]:
    divergences = {
        of: statistics.compare_classes(reference[of], new[of], seed=seed)
        if of is drift_words.CLASS
        else statistics.compare_numbers(reference[of], new[of], seed=seed)
        for of in reference
    }
    adjusted = holm([divergence.p_value for divergence in divergences.values()])
    return tuple(
        Compared(
            property=of,
            means=None if of is drift_words.CLASS else (float(reference[of].mean()), float(new[of].mean())),
            spread=0.0 if of is drift_words.CLASS else float(reference[of].std()),
            divergence=divergence,
            p_adjusted=p_value,
            verdict=statistics.verdict(divergence, p_value),
        )
        for (of, divergence), p_value in zip(divergences.items(), adjusted, strict=True)
    )
