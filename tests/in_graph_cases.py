"""Texts that lead tokenizers astray, and Hugging Face's tokenizer to compare with."""

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from tf_finetune.config import Truncation
from tf_finetune.text.character_table import UNREADABLE
from tf_finetune.text.truncation import truncate, truncate_pair

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP = 2, 3
WORDS = ["the", "The", "play", "##ing", "##ed", "un", "##play", "mask", "cafe", "café", "οδος", "##ος", "한", "中文"]
ALPHABETS = {
    "ascii": "".join(chr(code) for code in range(0x21, 0x7F)),
    "latin": "ßÀÉÌÍĨĮİıàéìíĩįñøŁłſﬁǅǰẞ",
    "greek": "ΣσςΆάΑαΩωᾼΐ",
    "cyrillic": "ЁёЙйЖж",
    "hebrew": "אבגשׁ",
    "arabic": "ابتأَُّ",
    "indic": "कखक़्िೋෝ",
    "thai": "กขาี",
    "kana": "かがカガｶﾞ",
    "hangul": "한국\u1112\u1161\u11ab",
    "chinese": "中文字豈\u3400\U00020000\U0002b8ff\U0002f800",
    "capitals since Unicode 9": "\u1c89\ua7cb\ua7ae\U0001e900\U000104b0\U00010570\U00016e40\U00010d50",
    "marks": "\u0300\u0301\u0307\u0315\u0327\u0338\u0345\u034f\u0903\u20d0\ufe0f",
    "marks that stay": "\u302e\u302f\u08d4\u1b44\u1dfb\U00011442\U0001d165\U0001d16d\U0001e000\U0001e94a\U0001d15e",
    "punctuation": "…–—“”¿¡。、·؟।\u37ef\u2e52",
    "symbols": "€©™½²№😀🇩\u20e3",
    "spaces": " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000",
    "controls": "\x00\x01\x11\x1b\x7f\xad\u200b\u200d\u2060\ufeff\ufffd\uffff\ufdd0\ue000\U000e0041\u0378",
}


class Switches(NamedTuple):
    lowercase: bool
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    clean_text: bool = True


UNCASED, CASED = Switches(True), Switches(False)
ALL_SWITCHES = [Switches(*values) for values in itertools.product((True, False), repeat=4)]


def python_reads(texts: Iterable[bytes]) -> list[str]:
    return [text.decode("utf-8", "replace") for text in texts]


def normalizer(switches: Switches) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=switches.clean_text,
        handle_chinese_chars=switches.tokenize_chinese_chars,
        strip_accents=switches.strip_accents,
        lowercase=switches.lowercase,
    )


def vocabulary_of(texts: Iterable[str], switches: Switches) -> list[str]:
    """Spells all of the texts, so that any other character shows; without what a vocabulary may not hold."""
    letters = set(normalizer(switches).normalize_str("\n".join(texts))) | set(ALPHABETS["ascii"])
    letters = sorted(letter for letter in letters if letter not in UNREADABLE and not letter.isspace())
    return list(dict.fromkeys(SPECIAL_TOKENS + letters + [f"##{letter}" for letter in letters] + WORDS))


class Reference:
    """`tokenizers` alone, and this project's truncation."""

    def __init__(self, vocabulary: Sequence[str], switches: Switches, special_tokens: Sequence = SPECIAL_TOKENS):
        ids = {token: index for index, token in enumerate(vocabulary)}
        self.tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        self.tokenizer.normalizer = normalizer(switches)
        self.tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.tokenizer.add_special_tokens(list(special_tokens))
        self.cls_id, self.sep_id = ids["[CLS]"], ids["[SEP]"]

    def encode(self, texts: Sequence[str], max_length: int = 1_000_000, truncation=Truncation.HEAD) -> list[list[int]]:
        return self.shorten(self.ids(texts), max_length, truncation)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Without [CLS] and [SEP]."""
        return [text.ids for text in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def shorten(self, texts: list[list[int]], max_length: int, truncation: Truncation) -> list[list[int]]:
        ids = ([self.cls_id, *text, self.sep_id] for text in texts)
        return [truncate(text, max_length=max_length, truncation=truncation) for text in ids]

    def shorten_pairs(
        self, texts: list[list[int]], pairs: list[list[int]], max_length: int, truncation: Truncation
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Ids and token type ids."""
        ids, type_ids = [], []
        for both in zip(texts, pairs, strict=True):
            first, second = truncate_pair(*both, max_length=max_length, truncation=truncation)
            ids.append([self.cls_id, *first, self.sep_id, *second, self.sep_id])
            type_ids.append([0] * (len(first) + 2) + [1] * (len(second) + 1))
        return ids, type_ids


def in_graph(vocabulary: Sequence[str], switches: Switches, max_length=1_000_000, truncation=Truncation.HEAD):
    from tf_finetune.text.in_graph import InGraphTokenizer

    special_tokens = {token: vocabulary.index(token) for token in SPECIAL_TOKENS}
    return InGraphTokenizer(
        vocabulary,
        **switches._asdict(),
        max_length=max_length,
        truncation=truncation,
        special_tokens=special_tokens,
    )


def random_text(rng: random.Random) -> bytes:
    """Words, special tokens and their fragments, letters of all scripts, controls, and bytes that are no UTF-8."""
    parts = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 4, 6, 8, 12))):
        kind = rng.randrange(10)
        if kind == 0:
            parts.append(rng.choice([*SPECIAL_TOKENS, "[mask]", "[", "]", "SEP]", "[CL", "[MASK"]))
        elif kind == 1:
            parts.append(rng.choice(WORDS))
        elif kind == 2:
            parts.append(chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])))
        elif kind == 3:
            parts.append(rng.choice(ALPHABETS["spaces"]))
        elif kind == 4 and rng.random() < 0.1:
            parts.append(rng.choice("eé中Ж") * rng.choice((99, 100, 101, 250)))
        elif kind == 5 and rng.random() < 0.3:
            parts.append(random_bytes(rng))
        else:
            letters = ALPHABETS[rng.choice(list(ALPHABETS))]
            parts.extend(rng.choice(letters) for _ in range(rng.randrange(1, 6)))
        if rng.random() < 0.3:
            parts.append(" ")
    return b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)


def random_bytes(rng: random.Random) -> bytes:
    """What decoders differ on: truncated and overlong sequences, surrogates, beyond Unicode, and any bytes at all."""
    whole = chr(rng.choice([rng.randrange(0x80, 0xD800), rng.randrange(0x10000, 0x110000)])).encode()
    return rng.choice(
        [
            whole[: rng.randrange(1, len(whole))],
            whole[rng.randrange(1, len(whole)) :],
            chr(rng.randrange(0xD800, 0xE000)).encode("utf-8", "surrogatepass"),
            bytes([0xC0 | rng.randrange(2), rng.randrange(0x80, 0xC0)]),
            bytes([0xE0, rng.randrange(0x80, 0xA0), rng.randrange(0x80, 0xC0)]),
            bytes([0xF0, rng.randrange(0x80, 0x90), rng.randrange(0x80, 0xC0), rng.randrange(0x80, 0xC0)]),
            bytes([0xF4, rng.randrange(0x90, 0xC0), rng.randrange(0x80, 0xC0), rng.randrange(0x80, 0xC0)]),
            bytes(rng.choice((0xF5, 0xF8, 0xFC, 0xFE, 0xFF, 0x80, 0xE2, 0xED, 0xF0, 0x41)) for _ in range(4)),
            bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9))),
        ]
    )
