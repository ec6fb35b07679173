"""What an export is asked, and what its checkpoint answers."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_finetune.config import ProblemType
from tf_finetune.serving.graph import TOKEN_INPUTS, text_inputs

if TYPE_CHECKING:
    from tf_finetune.evaluation.classifier import Classifier

# Where tokenizers go astray. All but the last one are short.
HOSTILE_TEXTS = (
    "The movie was absolutely wonderful, full of joy.",
    "The movie was terrible and boring.",
    "",
    " \t\n ",
    "a",
    "Œuvre naïve, straße, ﬁn… İstanbul ΟΔΥΣΣΕΥΣ",
    "電影很好看 映画は素晴らしい 영화가 좋았다",
    "[MASK] [SEP] literally, and [CLS]",
    "zero\u200bwidth soft\u00adhyphen nul\x00 and \ufffd",
    "emoji 🎬👍🏽 and e\u0301 combined",
    "don't-stop:now!!! (really?) $5.00 #1",
    "x" * 101 + " " + "word " * 600,
)


def hostile_texts(pairs: bool) -> tuple[tuple[str, ...], ...]:
    """HOSTILE_TEXTS; of pairs the second ones too, such that each stands on either side once."""
    return (HOSTILE_TEXTS, HOSTILE_TEXTS[1:] + HOSTILE_TEXTS[:1]) if pairs else (HOSTILE_TEXTS,)


def token_inputs(token_ids: list[list[int]], first_lengths: list[int] | None) -> dict[str, np.ndarray]:
    """TOKEN_INPUTS by name, int32 (texts, longest), padded with 0.

    Args:
        token_ids: of each text or pair.
        first_lengths: of pairs, how many of the tokens are of type 0.
    """
    lengths = np.array([len(ids) for ids in token_ids])
    firsts = lengths if first_lengths is None else np.array(first_lengths)
    places = np.arange(lengths.max())
    mask = places < lengths[:, np.newaxis]
    input_ids = np.zeros(mask.shape, np.int32)
    input_ids[mask] = np.concatenate(token_ids)
    type_ids = mask & (places >= firsts[:, np.newaxis])
    return dict(zip(TOKEN_INPUTS, (input_ids, mask.astype(np.int32), type_ids.astype(np.int32)), strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """Texts, their tokens and the checkpoint's answers.

    Attributes:
        sides: the texts, or the first and the second texts.
        token_ids: of each text or pair.
        first_lengths: of pairs, how many of the tokens are of type 0.
        logits: float32 (texts, num_labels), the checkpoint's.
    """

    sides: tuple[Sequence[str], ...]
    token_ids: list[list[int]]
    first_lengths: list[int] | None
    logits: np.ndarray

    @classmethod
    def of(cls, classifier: "Classifier", sides: tuple[Sequence[str], ...]) -> "Questions":
        """Asks a checkpoint."""
        sides = tuple(list(side) for side in sides)
        return cls(sides, *classifier.encode(*sides), classifier.logits(*sides))

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Questions":
        """What `to_json` gave."""
        logits = np.array(kept["logits"], np.float32)
        return cls(tuple(kept["sides"]), kept["token_ids"], kept["first_lengths"], logits)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "logits": self.logits.tolist()}

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def texts(self) -> dict[str, list[str]]:
        """The inputs of `serving_default`."""
        names = text_inputs(len(self.sides) == 2)
        return {name: list(side) for name, side in zip(names, self.sides, strict=True)}

    @property
    def tokens(self) -> dict[str, np.ndarray]:
        """The inputs of `tokens`."""
        return token_inputs(self.token_ids, self.first_lengths)

    def some(self, rows: slice) -> "Questions":
        """A few of them."""
        firsts = None if self.first_lengths is None else self.first_lengths[rows]
        return Questions(tuple(side[rows] for side in self.sides), self.token_ids[rows], firsts, self.logits[rows])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What kind of answers an export gives."""

    label_names: tuple[str, ...]
    problem_type: ProblemType
    pairs: bool

    @classmethod
    def of(cls, classifier: "Classifier", *, pairs: bool) -> "Task":
        return cls(label_names=classifier.label_names, problem_type=classifier.problem_type, pairs=pairs)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Task":
        """What `to_json` gave."""
        kind = ProblemType(kept["problem_type"])
        return cls(label_names=tuple(kept["label_names"]), problem_type=kind, pairs=kept["pairs"])

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"problem_type": self.problem_type.value}
