"""What Hugging Face's BERT tokenizer makes of each character, asked of `tokenizers` itself.

Which characters are letters, accents or punctuation, and how they are lowered and taken apart, is decided there by
tables of three Unicode versions; TensorFlow has a fourth, another one in each release. A table made by asking needs
none of them and is right for whichever `tokenizers` the model was trained with. Asking takes two to three seconds.
"""

import functools
from typing import NamedTuple

import numpy as np

BLOCK = 64  # characters a block; the many blocks that are alike are kept once
CODE_BITS = 21  # of an entry, for the code point; above them stands the order of a combining mark, 0 of all others
NOTHING = -1
BARRIER = -2  # nothing, too, and marks on its two sides are not sorted past it
ITSELF = -3

# What ops of TensorFlow cannot read: the wordpiece op crashes where its vocabulary has U+0000 or U+0011, and older
# unicode_encode takes noncharacters for faults. No vocabulary may hold them, so that one can stand for all in a text.
UNREADABLE = {
    "\x00",
    "\x11",
    *map(chr, range(0xFDD0, 0xFDF0)),
    *(chr(p << 16 | c) for p in range(17) for c in (0xFFFE, 0xFFFF)),
}
STAND_IN = "\x11"
# The planes of Unicode that have characters; in the others, empty to this day, each stays itself.
_ASKED = (*range(0x40000), *range(0xE0000, 0x110000))
# A letter that becomes itself, and that no other character becomes: it stands between those that are asked for.
_LETTER = "ꓐ"


class CharacterTable(NamedTuple):
    """Character `code` becomes the entries `entries[block_of[code // BLOCK] * BLOCK + code % BLOCK]`.

    Attributes:
        block_of: int32 of shape (blocks of Unicode,).
        entries: int32 of shape (different blocks * BLOCK, characters one becomes at most); NOTHING, BARRIER, ITSELF, or
            a code point with its mark's order in the upper bits. Spaces stand around what is a word of its own.
    """

    block_of: np.ndarray
    entries: np.ndarray


@functools.lru_cache
def character_table(
    *, lowercase: bool, strip_accents: bool | None, tokenize_chinese_chars: bool, clean_text: bool
) -> CharacterTable:
    """Asks `tokenizers` with the switches of its BertNormalizer."""
    from tokenizers import normalizers

    normalizer = normalizers.BertNormalizer(
        clean_text=clean_text,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    characters = [chr(code) for code in _ASKED if not 0xD800 <= code < 0xE000 and chr(code) != _LETTER]
    spaced, order = _spaced_characters(characters), _mark_order(normalizer, characters)
    becomes = {c: text for c in characters if (text := normalizer.normalize_str(c)) != c or c in spaced or c in order}
    barriers = _barriers([c for c, text in becomes.items() if not text], normalizer, order)

    becomes = {c: [w for part in text for w in spaced.get(part, part)] for c, text in becomes.items()}
    entries = np.full((0x110000, max(map(len, becomes.values()))), NOTHING, np.int32)
    entries[:, 0] = ITSELF
    for character, parts in becomes.items():
        row = [ITSELF if c == character and c not in order else ord(c) | order.get(c, 0) << CODE_BITS for c in parts]
        entries[ord(character), : max(len(row), 1)] = row or (BARRIER if character in barriers else NOTHING)
    for code in map(ord, UNREADABLE):
        entries[code, 0] = ord(STAND_IN) if entries[code, 0] == ITSELF else entries[code, 0]
    blocks = entries.reshape(-1, BLOCK * entries.shape[1])
    places = {}
    block_of = np.array([places.setdefault(block.tobytes(), len(places)) for block in blocks], np.int32)
    _, first = np.unique(block_of, return_index=True)
    return CharacterTable(block_of, blocks[first].reshape(-1, entries.shape[1]))


def _spaced_characters(characters: list[str]) -> dict[str, str]:
    """Those at which BertPreTokenizer ends a word: white space becomes a space, the others get spaces around them."""
    from tokenizers import pre_tokenizers

    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = {c: len(pre_tokenizer.pre_tokenize_str(_LETTER + c + _LETTER)) for c in characters}  # 1, 2 or 3
    return {c: " " if count == 2 else f" {c} " for c, count in words.items() if count > 1}


def _mark_order(normalizer, characters: list[str]) -> dict[str, int]:
    """The combining marks that are kept and sorted, each with its place among them; equal ones keep their order.

    Unicode calls the places combining classes. Those of `tokenizers` show in what NFD makes of many marks in a row.
    """
    from tokenizers import normalizers

    if normalizer.normalize_str("é") == "é":
        return {}  # accents are kept as they are: nothing is taken apart or sorted
    first, last = "\u0338", "\u0345"  # of the lowest class and of the highest: any mark between them is moved
    nfd = normalizers.NFD()
    around = [f"{last}{character}{first}" for character in characters]
    sorted_parts = nfd.normalize_str(_LETTER + _LETTER.join(around)).split(_LETTER)[1:]
    moved = [c for c, given, got in zip(characters, around, sorted_parts, strict=True) if given != got]
    kept = [c for c in moved if normalizer.normalize_str(_LETTER + c) == _LETTER + c]
    ahead = nfd.normalize_str(_LETTER + "".join(kept))[1:]
    backwards = nfd.normalize_str(_LETTER + "".join(reversed(kept)))[1:]
    order, place = {}, {mark: index for index, mark in enumerate(backwards)}
    for index, mark in enumerate(ahead):
        is_equal = index > 0 and place[mark] < place[ahead[index - 1]]
        order[mark] = order[ahead[index - 1]] if is_equal else index + 1
    return order


def _barriers(dropped: list[str], normalizer, order: dict[str, int]) -> set[str]:
    """Of the characters that are dropped, those that keep marks on their two sides from being sorted."""
    if not order:
        return set()
    low, high = min(order, key=order.get), max(order, key=order.get)
    text = _LETTER.join(high + character + low for character in dropped)
    sorted_parts = normalizer.normalize_str(_LETTER + text)[1:].split(_LETTER)
    return {c for c, part in zip(dropped, sorted_parts, strict=True) if part == high + low}
