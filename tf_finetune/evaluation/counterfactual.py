"""Whether answers change with the people a text speaks of: the words of one group in place of another's.

Counterfactual token fairness (Garg et al. 2019, https://arxiv.org/abs/1809.10610): asked for two texts that differ in
a word for a group of people, a classifier should say the same.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.evaluation import intervals
from tf_finetune.evaluation.identity_terms import Axis
from tf_finetune.evaluation.metrics import THRESHOLD, probabilities_of

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# Fewer swaps than these say nothing.
FEWEST = 10
EXAMPLES = 3

# Texts, and second texts or None -> float (n, num_labels): probabilities, or the number itself of a regression.
Ask = Callable[[Sequence[str], Sequence[str] | None], np.ndarray]
Texts = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Swap:
    """Two versions of a text, or of a pair of texts.

    Attributes:
        origin: the text or sentence that both are of.
        groups: of which the versions speak, by number.
        versions: each a text, or text and second text; the first one is what was found, where one was.
    """

    origin: int
    groups: tuple[int, int]
    versions: tuple[Texts, Texts]


def asking(classifier: "Classifier") -> Ask:
    """What `audit` asks of a checkpoint that answers."""

    def ask(texts: Sequence[str], pairs: Sequence[str] | None) -> np.ndarray:
        logits = classifier.logits(texts, pairs)
        is_number = classifier.problem_type is ProblemType.REGRESSION
        return logits if is_number else probabilities_of(logits, classifier.problem_type)

    return ask


def audit(
    ask: Ask,
    texts: Sequence[str],
    axes: Sequence[Axis],
    *,
    text_pairs: Sequence[str] | None = None,
    problem_type: ProblemType,
    label_names: Sequence[str],
    most_texts: int = 500,
    fewest: int = FEWEST,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Asks for texts with each group's words in place of another's, and says how the answers change.

    A text is of an axis if it holds words of exactly one of its groups, which are put in the place of those of each
    other group; one that holds several groups' is left out, as it has no group to change. Identical texts count once.
    What is behind the tokens that the model reads changes nothing and counts as that.

    The numbers of a pair of groups are the second one's less the first one's, whichever the text held. Of many pairs
    some intervals miss zero by chance alone: one in twenty does where there is no bias at all.

    Args:
        ask: answers for texts; see `asking`.
        texts: to look for words in.
        axes: see `identity_terms.read_terms`.
        text_pairs: second texts, in which the same is swapped. Sentences are not asked then.
        problem_type: of the answers, and not AUTO.
        label_names: of the classes.
        most_texts: drawn of an axis, by seed, where it has more.
        fewest: swaps, or texts, for a number to be given; others are None, and "too_few" says so.
        seed: of the texts drawn and of the intervals.

    Returns:
        JSON-ready, for each axis its "name" and "groups", and what was found in the "texts" and in the axis's
        "sentences", None where none were asked. Each of these two has
        - "found", texts of the axis; "left_out", texts that hold its words but not those of one group;
        - "asked", texts that were swapped, and "swaps"; "too_few";
        - "flipped", the share of texts whose answer changes in at least one swap, with "flipped_interval" (Wilson);
          None for a regression;
        - "change", the mean of the absolute change of the class that changes most (Garg et al.'s counterfactual
          token fairness gap), with "change_interval" (bootstrap over texts);
        - "pairs" of groups, the largest change first: "groups" (two names), "swaps", "too_few", "flipped" of swaps,
          "flipped_interval", and "change", signed, of the "class" (the second of two; of more the one that changes
          most; None for a regression), with "change_interval";
        - "examples", the swaps with the largest changes: "groups", "texts" and "text_pairs" (None for single texts) of
          both versions, "class", "probabilities" (of that class) of both, and "flipped".
    """
    kind = Kind(problem_type, tuple(label_names))
    found = [_found(axis, texts, text_pairs) for axis in axes]
    of_texts = [
        list(_swaps_of_texts(axis, _drawn(places, most_texts, seed), texts, text_pairs))
        for axis, (places, _) in zip(axes, found, strict=True)
    ]
    of_sentences = [[] if text_pairs is not None else list(_swaps_of_sentences(axis)) for axis in axes]
    answers = _answers(ask, [swap for swaps in (*of_texts, *of_sentences) for swap in swaps])
    result = []
    for axis, (places, left_out), own, others in zip(axes, found, of_texts, of_sentences, strict=True):
        counts = {"found": len(places), "left_out": left_out}
        measured = counts | _measured(axis, own, answers, kind, fewest=fewest, seed=seed)
        sentences = None
        if others:
            counts = {"found": len(axis.sentences), "left_out": 0}
            sentences = counts | _measured(axis, others, answers, kind, fewest=fewest, seed=seed)
        result.append({"name": axis.name, "groups": list(axis.groups), "texts": measured, "sentences": sentences})
    return result


@dataclasses.dataclass(frozen=True)
class Kind:
    """Of what the answers are."""

    problem_type: ProblemType
    label_names: tuple[str, ...]

    @property
    def fixed_class(self) -> int | None:
        """The class whose change is told; None where it is the one that changes most."""
        is_one_of_two = self.problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION and len(self.label_names) == 2
        return 1 if is_one_of_two else 0 if self.problem_type is ProblemType.REGRESSION else None

    @property
    def width(self) -> int:
        """Numbers an answer."""
        return 1 if self.problem_type is ProblemType.REGRESSION else len(self.label_names)

    def name(self, label: int) -> str | None:
        return None if self.problem_type is ProblemType.REGRESSION else self.label_names[label]

    def flipped(self, first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
        """bool (n,), whether the answer is another one; None for numbers."""
        if self.problem_type is ProblemType.REGRESSION:
            return None
        if self.problem_type is ProblemType.MULTI_LABEL_CLASSIFICATION:
            return ((first >= THRESHOLD) != (second >= THRESHOLD)).any(axis=-1)
        return first.argmax(axis=-1) != second.argmax(axis=-1)


def _found(axis: Axis, texts: Sequence[str], pairs: Sequence[str] | None) -> tuple[list[tuple[int, int]], int]:
    """Place and group of the texts that hold one group's words, and how many others hold some."""
    places, left_out, seen = [], 0, set()
    for place, both in enumerate(zip(texts) if pairs is None else zip(texts, pairs, strict=True)):
        held = axis.held(both)
        if not held or hash(both) in seen:
            continue
        seen.add(hash(both))
        if len(held) == 1 and None not in held:
            places.append((place, *held))
        else:
            left_out += 1
    return places, left_out


def _drawn(places: list[tuple[int, int]], count: int, seed: int) -> list[tuple[int, int]]:
    return places if len(places) <= count else sorted(random.Random(seed).sample(places, count))


def _swaps_of_texts(
    axis: Axis, places: list[tuple[int, int]], texts: Sequence[str], pairs: Sequence[str] | None
) -> Iterator[Swap]:
    for place, source in places:
        original = (texts[place],) if pairs is None else (texts[place], pairs[place])
        for target in range(len(axis.groups)):
            if target != source:
                changed = tuple(axis.swapped(text, source=source, target=target) for text in original)
                yield Swap(place, (source, target), (original, changed))


def _swaps_of_sentences(axis: Axis) -> Iterator[Swap]:
    for origin, versions in enumerate(axis.sentences):
        for second in range(1, len(versions)):
            for first in range(second):
                yield Swap(origin, (first, second), ((versions[first],), (versions[second],)))


def _answers(ask: Ask, swaps: list[Swap]) -> dict[Texts, np.ndarray]:
    """What is said of each text, asked for once and all together, so that batches are full."""
    asked = list(dict.fromkeys(version for swap in swaps for version in swap.versions))
    if not asked:
        return {}
    texts, *pairs = map(list, zip(*asked, strict=True))
    return dict(zip(asked, np.asarray(ask(texts, pairs[0] if pairs else None), np.float64), strict=True))


def _measured(
    axis: Axis, swaps: list[Swap], answers: dict[Texts, np.ndarray], kind: Kind, *, fewest: int, seed: int
) -> dict[str, Any]:
    first, second = (
        np.array([answers[swap.versions[side]] for swap in swaps]).reshape(len(swaps), kind.width) for side in (0, 1)
    )
    changes, flipped = second - first, kind.flipped(first, second)
    most = np.abs(changes).max(axis=-1)
    # The swaps of one text are no separate witnesses: each text has one voice.
    asked, of_text = np.unique([swap.origin for swap in swaps], return_inverse=True)
    by_text = np.bincount(of_text, weights=most) / np.bincount(of_text)
    flipped_texts = None if flipped is None else np.bincount(of_text, weights=flipped) > 0
    largest = np.argsort(-most, kind="stable")
    largest = largest[np.sort(np.unique(of_text[largest], return_index=True)[1])]  # one of each text
    return {
        "asked": len(asked),
        "swaps": len(swaps),
        **_numbers(by_text, flipped_texts, fewest=fewest, seed=seed),
        "pairs": _pairs(axis, swaps, changes, flipped, kind, fewest=fewest, seed=seed),
        "examples": [_example(axis, swaps[i], first[i], second[i], kind) for i in largest[:EXAMPLES]],
    }


def _pairs(
    axis: Axis,
    swaps: list[Swap],
    changes: np.ndarray,
    flipped: np.ndarray | None,
    kind: Kind,
    *,
    fewest: int,
    seed: int,
) -> list[dict[str, Any]]:
    groups, rows = np.array([swap.groups for swap in swaps], np.int64).reshape(-1, 2), []
    for pair in itertools.combinations(range(len(axis.groups)), 2):
        is_pair, is_reversed = (groups == pair).all(axis=-1), (groups == pair[::-1]).all(axis=-1)
        oriented = np.concatenate([changes[is_pair], -changes[is_reversed]])
        flips = None if flipped is None else np.concatenate([flipped[is_pair], flipped[is_reversed]])
        if len(oriented):
            of_pair = _of_pair(oriented, flips, kind, fewest=fewest, seed=seed)
            rows.append({"groups": [axis.groups[group] for group in pair], **of_pair})
    return sorted(rows, key=lambda row: -abs(row["change"] or 0))


def _of_pair(changes: np.ndarray, flipped: np.ndarray | None, kind: Kind, *, fewest: int, seed: int) -> dict[str, Any]:
    label = kind.fixed_class
    if label is None:
        label = int(np.abs(changes.mean(axis=0)).argmax())
    numbers = _numbers(changes[:, label], flipped, fewest=fewest, seed=seed)
    return {"swaps": len(changes), "class": None if numbers["too_few"] else kind.name(label), **numbers}


def _numbers(changes: np.ndarray, flipped: np.ndarray | None, *, fewest: int, seed: int) -> dict[str, Any]:
    too_few = len(changes) < max(fewest, 2)
    has_flips = not too_few and flipped is not None
    return {
        "too_few": too_few,
        "flipped": float(flipped.mean()) if has_flips else None,
        "flipped_interval": intervals.of_share(int(flipped.sum()), len(flipped)) if has_flips else None,
        "change": None if too_few else float(changes.mean()),
        "change_interval": None if too_few else intervals.by_bootstrap([changes], np.mean, seed=seed),
    }


def _example(axis: Axis, swap: Swap, first: np.ndarray, second: np.ndarray, kind: Kind) -> dict[str, Any]:
    label = kind.fixed_class
    if label is None:
        label = int(np.abs(second - first).argmax())
    flipped = kind.flipped(first[None], second[None])
    texts, *pairs = zip(*swap.versions, strict=True)
    return {
        "groups": [axis.groups[group] for group in swap.groups],
        "texts": list(texts),
        "text_pairs": list(pairs[0]) if pairs else None,
        "class": kind.name(label),
        "probabilities": [float(first[label]), float(second[label])],
        "flipped": None if flipped is None else bool(flipped[0]),
    }
