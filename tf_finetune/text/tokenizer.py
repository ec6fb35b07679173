"""The Hugging Face tokenizer of a checkpoint, with this project's truncation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tf_finetune.config import Truncation
from tf_finetune.errors import InputError
from tf_finetune.text import tokenizer_files
from tf_finetune.text.character_table import UNREADABLE
from tf_finetune.text.truncation import truncate, truncate_pair

# Texts encoded at once: enough for all cores, and few whole encodings in memory beside the ids that are kept.
CHUNK = 4096


class Token(NamedTuple):
    """A token, and where it comes from.

    Attributes:
        id: of the vocabulary.
        side: 0 for the first text, 1 for the second; the token type of BERT.
        span: of characters in that text, start and end, the end left out; None for [CLS] and [SEP] around the texts.
        word: the number of its word in that text, which its other pieces have, too; None for those.
    """

    id: int
    side: int
    span: tuple[int, int] | None
    word: int | None


class Tokenizer:
    """Text -> token ids. Wraps BERT's fast tokenizer of `transformers`, whichever layout it was saved in.

    A lone surrogate in a text, which no UTF-8 can hold, is read as its three bytes are by `bytes.decode("utf-8",
    "replace")`: as three U+FFFD. An exported model reads those bytes in the same way.

    Attributes:
        fast: the `tokenizers.Tokenizer` inside, truncation and padding off.
        folder: where it was read from.

    Raises:
        InputError: no tokenizer there, a broken one, or another kind than BERT's WordPiece.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._tokenizer = tokenizer_files.load(self.folder)
        self.fast = self._tokenizer.backend_tokenizer
        # A saved tokenizer may have both baked in (the packaged one pads everything to 128).
        self.fast.no_truncation()
        self.fast.no_padding()
        self._cls_id, self._sep_id = self._special_ids()

    def encode(self, texts: Sequence[str], *, max_length: int, truncation: Truncation) -> list[list[int]]:
        """Token ids of each text: [CLS] text [SEP], at most max_length of them."""
        ids = []
        for start in range(0, len(texts), CHUNK):
            encoded = self.fast.encode_batch_fast(_valid(texts[start : start + CHUNK]))
            ids += [truncate(encoding.ids, max_length=max_length, truncation=truncation) for encoding in encoded]
        return ids

    def encode_pairs(
        self, texts: Sequence[str], pairs: Sequence[str], *, max_length: int, truncation: Truncation
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids and token type ids of each text and its pair: [CLS] text [SEP] pair [SEP].

        Types are 0 up to the first [SEP] and 1 after it. What is too long is shortened as `truncation.truncate_pair`
        says. An empty text leaves its special tokens: [CLS] text [SEP] [SEP], as Hugging Face gives for a batch
        (called with one text and an empty pair, it leaves the second [SEP] out).

        Args:
            texts: the first texts.
            pairs: the second text of each.
            max_length: tokens of both together at most, 3 special ones included; at least 3.
            truncation: which part of a text that is shortened is kept.

        Raises:
            InputError: not as many pairs as texts, or a max_length below 3.
        """
        _check_room_for_pair(max_length)
        if len(texts) != len(pairs):
            raise InputError("texts without their pair", expected=f"{len(texts)} second texts", got=len(pairs))
        ids, type_ids = [], []
        for start in range(0, len(texts), CHUNK):
            encoded = (
                self.fast.encode_batch_fast(_valid(side[start : start + CHUNK]), add_special_tokens=False)
                for side in (texts, pairs)
            )
            for text, pair in zip(*encoded, strict=True):
                first, second = truncate_pair(text.ids, pair.ids, max_length=max_length, truncation=truncation)
                ids.append([self._cls_id, *first, self._sep_id, *second, self._sep_id])
                type_ids.append([0] * (len(first) + 2) + [1] * (len(second) + 1))
        return ids, type_ids

    def locate(
        self, text: str, pair: str | None = None, *, max_length: int, truncation: Truncation
    ) -> tuple[list[Token], bool]:
        """The tokens of one text, or of a pair, with their places; their ids and sides are what `encode` and
        `encode_pairs` give.

        Returns:
            The tokens, and whether some of the text were cut off.

        Raises:
            InputError: a max_length below 3 for a pair.
        """
        cls, sep, last = (
            Token(index, side, None, None) for index, side in ((self._cls_id, 0), (self._sep_id, 0), (self._sep_id, 1))
        )
        whole = self._located(text, side=0)
        if pair is None:
            tokens = truncate([cls, *whole, sep], max_length=max_length, truncation=truncation)
            return tokens, len(tokens) < len(whole) + 2
        _check_room_for_pair(max_length)
        other = self._located(pair, side=1)
        first, second = truncate_pair(whole, other, max_length=max_length, truncation=truncation)
        return [cls, *first, sep, *second, last], len(first) + len(second) < len(whole) + len(other)

    def _located(self, text: str, *, side: int) -> list[Token]:
        (valid,) = _valid([text])
        encoding = self.fast.encode(valid, add_special_tokens=False)
        spans, sides = encoding.offsets, [side] * len(encoding.ids)
        if len(valid) > len(text):  # lone surrogates became three characters each
            original = [position for position, character in enumerate(text) for _ in _valid([character])[0]]
            spans = [(original[start], original[max(start, end - 1)] + 1) for start, end in spans]
        return [Token(*token) for token in zip(encoding.ids, sides, spans, encoding.word_ids, strict=True)]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json.

        Raises:
            OSError: they cannot be written.
        """
        try:
            self._tokenizer.save_pretrained(folder)
        except Exception as error:  # the Rust library has no class of its own for a full disk
            raise error if isinstance(error, OSError) else OSError(str(error)) from error

    @property
    def vocabulary(self) -> list[str]:
        """The tokens in the order of their ids; an id no token has gets a string that no text can spell."""
        return _by_id(self.fast.get_vocab())

    @property
    def unknown_id(self) -> int:
        """The id of what stands for a word that the vocabulary cannot spell, [UNK]."""
        return self.fast.token_to_id(self.fast.model.unk_token)

    def in_graph_options(self) -> dict[str, Any]:
        """What text.in_graph.InGraphTokenizer needs to give the same ids.

        `special_tokens` are those found literally in a text before it is normalised, such as [MASK]. The `vocabulary`
        is without them where they were added to it: no part of a word becomes one.

        Raises:
            InputError: the tokenizer has a part or a token that the graph has not.
        """
        saved = json.loads(self.fast.to_str())
        self._check_parts(saved)
        normalizer = saved["normalizer"]
        return {
            "vocabulary": _by_id(self.fast.get_vocab(with_added_tokens=False)),
            "lowercase": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            "clean_text": normalizer["clean_text"],
            "special_tokens": {t.content: index for index, t in self.fast.get_added_tokens_decoder().items()},
            "unk_token": saved["model"]["unk_token"],
            "cls_token": self.fast.id_to_token(self._cls_id),
            "sep_token": self.fast.id_to_token(self._sep_id),
        }

    def _check_parts(self, saved: dict[str, Any]) -> None:
        """Refuses what InGraphTokenizer would do in another way."""
        model = saved["model"]
        parts = {
            "pre-tokenizer": ("BertPreTokenizer", (saved["pre_tokenizer"] or {}).get("type")),
            "max_input_chars_per_word": (100, model["max_input_chars_per_word"]),
            "continuing_subword_prefix": ("##", model["continuing_subword_prefix"]),
        }
        for name, (expected, got) in parts.items():
            if got != expected:
                raise InputError(f"cannot be exported with this {name}", where=self.folder, expected=expected, got=got)
        for token in saved["added_tokens"]:
            content = token["content"]
            # Stripped white space changes no id: it parts words and is no part of one.
            if token["normalized"] or token["single_word"] or content != content.strip():
                raise InputError(
                    f"cannot be exported with the added token {content!r}",
                    where=self.folder,
                    expected="a special one: not normalized, not single_word, no white space at its ends",
                    got=", ".join(name for name in ("normalized", "single_word") if token[name]) or "white space",
                )
        if unreadable := [token for token in self.vocabulary if not UNREADABLE.isdisjoint(token)]:
            raise InputError(
                "cannot be exported with this vocabulary",
                where=self.folder,
                expected="no token with U+0000, U+0011 or one of Unicode's noncharacters",
                got=ascii(unreadable[0]),
            )

    def _special_ids(self) -> list[int]:
        """The ids of [CLS] and [SEP]: all that an empty text has."""
        ids = self.fast.encode("").ids
        if len(ids) != 2:
            tokens = " ".join(self.fast.id_to_token(index) for index in ids)
            raise InputError(
                "not a BERT tokenizer", where=self.folder, expected="[CLS] text [SEP]", got=f"{tokens} text".strip()
            )
        return ids


def _check_room_for_pair(max_length: int) -> None:
    if max_length < 3:
        raise InputError("too short for a pair of texts", expected="a max_length of at least 3", got=max_length)


def _valid(texts: Sequence[str]) -> list[str]:
    return [text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for text in texts]


def _by_id(ids: dict[str, int]) -> list[str]:
    tokens = {index: token for token, index in ids.items()}
    return [tokens.get(index, f"no token {index}") for index in range(max(tokens) + 1)]
