"""Which words made a classifier answer as it does: integrated gradients (Sundararajan et al. 2017,
https://arxiv.org/abs/1703.01365) over the word embeddings of a text.

The score of the text is taken apart into what each token adds to the score of a baseline: the same sequence with every
token but [CLS] and [SEP] replaced by [PAD], position, mask and type as they are. The word vectors go from there to the
text in a straight line, and a token's attribution is the integral of the score's slope by it along that line. Together
the attributions are the difference of both scores; how far they are from it is the completeness error.

The line is not walked in equal steps but by Gauss-Legendre quadrature, whose error falls far faster with the number of
points; a text whose completeness error is above TOLERANCE gets twice as many, up to MOST_STEPS.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.evaluation.metrics import probabilities_of
from tf_finetune.text.tokenizer import Token

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

TOLERANCE = 0.01
FEWEST_STEPS, MOST_STEPS = 32, 512
# Points of the line computed at once have at most so many tokens together, or are one: the backward pass needs what
# every block held, whose attention grows with tokens times length.
TOKENS_AT_ONCE = 2048


@dataclasses.dataclass(frozen=True)
class Attribution:
    """What one token, or one word, adds to the score.

    Attributes:
        piece: of the text, as it was written.
        start, end: its characters in that text, the end left out.
        side: 0 where it is of the text, 1 where it is of its pair.
        word: the number of the word in that text; the pieces of one word share it.
        attribution: in the unit of the score.
    """

    piece: str
    start: int
    end: int
    side: int
    word: int
    attribution: float


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why a text, or a pair, has its score.

    Attributes:
        label: that is explained; of a regression the name of its number.
        tokens: those that the model saw, in order and without the special ones around the texts, which the baseline
            has too and which therefore add nothing.
        score: the log-odds of the label against all others, where a text has one class (of two classes the difference
            of their logits); the label's logit where it may have several; the number itself of a regression. Logits
            are those that probabilities are made of: divided by the temperature.
        baseline_score: the same of the baseline.
        completeness_error: |sum of the attributions - (score - baseline_score)| / |score - baseline_score|.
        steps: points of the quadrature.
        truncated: whether some of the text was cut off, which the model did not see.
    """

    label: str
    tokens: tuple[Attribution, ...]
    score: float
    baseline_score: float
    completeness_error: float
    steps: int
    truncated: bool

    def words(self) -> tuple[Attribution, ...]:
        """The tokens with the pieces of a word put together, whose attributions add up."""
        words = []
        for _, pieces in itertools.groupby(self.tokens, key=lambda token: (token.side, token.word)):
            first, *others = pieces
            for other in others:
                piece, total = first.piece + other.piece, first.attribution + other.attribution
                first = dataclasses.replace(first, piece=piece, end=other.end, attribution=total)
            words.append(first)
        return tuple(words)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)


class Explainer:
    """Explains the answers of a classifier; the computation is traced once, for texts of any length.

    Args:
        classifier: in float32, on TensorFlow.

    Raises:
        InputError: it computes in another type, or knows one class alone.
    """

    def __init__(self, classifier: "Classifier"):
        computes_in = classifier.model.compute_dtype
        if computes_in != "float32":
            raise InputError("answers are explained in float32 alone", where="classifier.model", got=computes_in)
        if classifier.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION and len(classifier.label_names) < 2:
            raise InputError("there is no other class to explain this one against", expected="two classes or more")
        self.classifier = classifier

    def labels_of(self, logits: np.ndarray) -> list[str]:
        """The most probable label of each text, which is explained unless another is asked for.

        Args:
            logits: float (texts, num_labels).
        """
        probabilities = probabilities_of(logits, self.classifier.problem_type)
        return [self.classifier.label_names[index] for index in probabilities.argmax(axis=-1)]

    def explanations(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, labels: Sequence[str] | None = None
    ) -> Iterator[Explanation]:
        """One of each text or pair, in their order; each is computed alone, when it is asked for.

        Args:
            texts: to be explained.
            pairs: the second text of each.
            labels: which label to explain of each; None means the most probable one.

        Raises:
            InputError: not as many pairs or labels as texts, or no such label.
        """
        if labels is None:
            labels = self.labels_of(self.classifier.logits(texts, pairs)) if texts else []
        for what, given in (("second texts", pairs), ("labels", labels)):
            if given is not None and len(given) != len(texts):
                raise InputError(f"not as many {what} as texts", expected=len(texts), got=len(given))
        if unknown := [label for label in labels if label not in self.classifier.label_names]:
            expected = " or ".join(self.classifier.label_names[:20])
            raise InputError("no such label", where="labels", expected=expected, got=repr(unknown[0]))
        for text, pair, label in zip(texts, pairs or [None] * len(texts), labels, strict=True):
            yield self._explanation(text, pair, label)

    def _explanation(self, text: str, pair: str | None, label: str) -> Explanation:
        options = {"max_length": self.classifier.max_length, "truncation": self.classifier.truncation}
        tokens, truncated = self.classifier.tokenizer.locate(text, pair, **options)
        path = functools.partial(self._path, tokens, self.classifier.label_names.index(label))
        (baseline_score, score), _ = path(np.array([0.0, 1.0]))
        steps = FEWEST_STEPS
        while True:
            attributions = integral(lambda points: path(points)[1], steps)
            error = completeness_error(float(attributions.sum()), float(score), float(baseline_score))
            if error <= TOLERANCE or steps >= MOST_STEPS:
                break
            steps *= 2
        placed = tuple(
            Attribution((text, pair)[token.side][slice(*token.span)], *token.span, token.side, token.word, float(value))
            for token, value in zip(tokens, attributions, strict=True)
            if token.span is not None
        )
        return Explanation(label, placed, float(score), float(baseline_score), error, steps, truncated)

    def _path(self, tokens: Sequence[Token], label: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (points,) and what the tokens add per unit of the way, (points, tokens), at points between 0, the
        baseline, and 1, the text; both float64."""
        ids, types = (np.array(column, np.int32) for column in zip(*((t.id, t.side) for t in tokens), strict=True))
        is_text = np.array([token.span is not None for token in tokens])
        others = np.delete(np.arange(len(self.classifier.label_names), dtype=np.int32), label)
        rows = max(1, TOKENS_AT_ONCE // len(tokens))
        computed = [
            self._slopes(ids, types, is_text, np.float32(points[start : start + rows]), np.int32(label), others)
            for start in range(0, len(points), rows)
        ]
        scores, slopes = (np.concatenate(parts).astype(np.float64) for parts in zip(*computed, strict=True))
        return scores, slopes

    @functools.cached_property
    def _slopes(self) -> Callable:
        """The graph of `_path`, whose signature holds for every text."""
        import tensorflow as tf

        model = self.classifier.model
        one_class = self.classifier.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION
        embeddings, padding = model.bert.embeddings, model.architecture.pad_token_id or 0
        token_types = (tf.int32, tf.int32, tf.bool, tf.float32)
        signature = [*(tf.TensorSpec([None], dtype) for dtype in token_types), tf.TensorSpec([], tf.int32)]

        @tf.function(input_signature=[*signature, tf.TensorSpec([None], tf.int32)], autograph=False)
        def slopes(ids, types, is_text, points, label, others):
            there = embeddings.word_vectors(ids[tf.newaxis])  # (1, length, hidden)
            start = embeddings.word_vectors(tf.where(is_text, padding, ids)[tf.newaxis])
            share = points[:, tf.newaxis, tf.newaxis]
            # Not start + share * way: at 0 and 1 this is each of them to the bit.
            vectors = (1 - share) * start + share * there
            rows = tf.tile(ids[tf.newaxis], [tf.size(points), 1])
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(vectors)
                logits = logits_from(model, vectors, input_ids=rows, token_type_ids=types[tf.newaxis])
                scores = tf.gather(logits, label, axis=1)
                if one_class:
                    scores -= tf.reduce_logsumexp(tf.gather(logits, others, axis=1), axis=1)
            # No row's score depends on another's vectors, so the gradient of their sum has the slopes of each.
            return scores, tf.reduce_sum(tape.gradient(scores, vectors) * (there - start), axis=-1)

        return slopes


def explain(
    classifier: "Classifier",
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> Iterator[Explanation]:
    """What `Explainer.explanations` says of these texts or pairs, one by one."""
    return classifier.explainer.explanations(texts, pairs, labels=labels)


def logits_from(model, word_vectors, *, input_ids, token_type_ids):
    """The logits of texts whose word embeddings are given; without dropout.

    Args:
        model: a TFBertForSequenceClassification.
        word_vectors: float32 (batch, length, hidden), of texts without padding.
        input_ids: int (batch, length), of which only the shape counts.
        token_type_ids: int (batch, length), or (1, length) for all.
    """
    inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids, "word_vectors": word_vectors}
    _, pooled = model.bert(**inputs, training=False, pooled_only=True)
    return model.classifier(pooled)


def integral(function: Callable[[np.ndarray], np.ndarray], steps: int) -> np.ndarray:
    """The integral from 0 to 1 of a function of points (steps,) -> values (steps, ...), by Gauss-Legendre quadrature:
    exact for polynomials of degree 2 * steps - 1."""
    points, weights = np.polynomial.legendre.leggauss(steps)  # of -1 to 1
    return np.tensordot(weights / 2, function((points + 1) / 2), axes=1)


def completeness_error(total: float, score: float, baseline_score: float) -> float:
    """How far the attributions' total is from the difference of the scores, as a share of it.

    A difference that float32 scores cannot tell from 0 counts as the least that they can: an empty text, which is its
    own baseline, has an error of 0, and nothing is divided by 0.
    """
    difference = score - baseline_score
    resolution = float(np.finfo(np.float32).eps) * max(1.0, abs(score), abs(baseline_score))
    return abs(total - difference) / max(abs(difference), resolution)
