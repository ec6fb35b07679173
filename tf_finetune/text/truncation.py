"""Which tokens stay when a text, or a pair of texts, is longer than the model may see."""

from typing import TypeVar

from tf_finetune.config import Truncation

# An id, or whatever stands for a token.
T = TypeVar("T")


def truncate(ids: list[T], *, max_length: int, truncation: Truncation) -> list[T]:
    """Shortens [CLS] text [SEP] to max_length ids; the two special ones stay."""
    surplus = len(ids) - max_length
    if surplus <= 0:
        return ids
    head = from_start(max_length - 2, truncation)
    return ids[: 1 + head] + ids[1 + head + surplus :]


def truncate_pair(
    first: list[T], second: list[T], *, max_length: int, truncation: Truncation
) -> tuple[list[T], list[T]]:
    """Shortens two texts, given without special tokens, so that [CLS] first [SEP] second [SEP] has max_length ids.

    The longer one is shortened first, as `truncation=True` of Hugging Face's fast tokenizers does; HEAD and TAIL give
    what those give for `truncation_side` "right" and "left". HEAD_TAIL takes as much of each text, from its middle.
    """
    lengths = longest_first(len(first), len(second), room=max_length - 3)
    return tuple(_cut(ids, kept, truncation) for ids, kept in zip((first, second), lengths, strict=True))


def longest_first(first: int, second: int, *, room: int) -> tuple[int, int]:
    """How many of `first` and of `second` tokens are kept, `room` together where there are more.

    A text of at most half the room stays whole. Of an odd room shared by halves the longer text has the odd one, and
    of two equally long texts the second (the slow tokenizers of transformers 4 gave it to the first).
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def _cut(ids: list[T], kept: int, truncation: Truncation) -> list[T]:
    surplus = len(ids) - kept
    head = from_start(kept, truncation)
    return ids[:head] + ids[head + surplus :]


def from_start(kept: int, truncation: Truncation) -> int:
    """How many of the tokens that are kept stand at the start of the text; the others stand at its end."""
    return {Truncation.HEAD: kept, Truncation.TAIL: 0, Truncation.HEAD_TAIL: kept // 4}[truncation]
