"""BERT's tokenizer as TensorFlow ops: the half of an exported model that turns text into input ids."""

import re
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf
import tensorflow_text as tf_text

from tf_finetune.config import Truncation
from tf_finetune.text import character_table
from tf_finetune.text.truncation import from_start

# A byte that is in no UTF-8, so that it is free to separate pieces of text.
_SEPARATOR = b"\xff"

_ASCII_CONTROLS = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F]"
_ASCII_PUNCTUATION = r"[!-/:-@\[-`{-~]"

_MAX_CHARS_PER_WORD = 100  # Hugging Face's max_input_chars_per_word; longer words are unknown


class InGraphTokenizer:
    """Turns a batch of strings into the input ids of Hugging Face's BERT tokenizer, in TensorFlow ops alone.

    Equal to `tokenizers` with BertNormalizer, BertPreTokenizer and WordPiece (`BertTokenizerFast`) for every string,
    special tokens written out in the text included. Bytes are read as `bytes.decode("utf-8", "replace")` reads them.
    What a character becomes was asked of `tokenizers` (`character_table`) and is a constant of the graph, so that the
    Unicode version of the TensorFlow that runs it does not matter.

    Every op is known to TensorFlow and TensorFlow Text 2.12 and the vocabulary is a constant, so that a SavedModel
    needs no asset files. Create it outside of `tf.function`, call it anywhere.

    Args:
        vocabulary: The wordpieces in the order of their ids; those within a word start with "##".
        lowercase: Whether the vocabulary is uncased.
        strip_accents: Whether accents are dropped; None means as `lowercase`.
        tokenize_chinese_chars: Whether each ideograph is a word.
        clean_text: Whether control characters are dropped.
        max_length: Tokens a text at most, `cls_token` and `sep_token` included.
        truncation: Which part of a longer text is kept; HEAD_TAIL keeps a quarter from its start, rounded down.
        special_tokens: The tokens recognised in raw text, before any cleaning, and their ids; `cls_token` and
            `sep_token` are among them. At one place in the text the longest counts.
        unk_token: Stands for words that the vocabulary cannot spell.
        cls_token: Starts each text.
        sep_token: Ends each text.

    Raises:
        ValueError: If `max_length` leaves no room for text, or a token is missing where it must be.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        lowercase: bool,
        strip_accents: bool | None,
        tokenize_chinese_chars: bool,
        clean_text: bool = True,
        max_length: int,
        truncation: Truncation,
        special_tokens: Mapping[str, int],
        unk_token: str = "[UNK]",
        cls_token: str = "[CLS]",
        sep_token: str = "[SEP]",
    ):
        if max_length < 3:
            raise ValueError(f"`max_length` must be at least 3, two for the special tokens. Received: {max_length=}")
        if unk_token not in vocabulary:
            raise ValueError(f"`unk_token` must be in `vocabulary` of {len(vocabulary)} tokens. Received: {unk_token=}")
        for name, token in (("cls_token", cls_token), ("sep_token", sep_token)):
            if token not in special_tokens:
                raise ValueError(f"`{name}` must be in special_tokens={dict(special_tokens)}. Received: {token!r}")
        if unreadable := [token for token in vocabulary if not character_table.UNREADABLE.isdisjoint(token)]:
            expected = "be without U+0000, U+0011 and Unicode's noncharacters, which TensorFlow's ops cannot read"
            raise ValueError(f"`vocabulary` must {expected}. Received: {unreadable[:3]}")
        if "" in special_tokens:
            raise ValueError(f"`special_tokens` must not be empty strings. Received: {dict(special_tokens)}")

        self._cls_token = cls_token
        self._sep_token = sep_token
        self._unk_token = unk_token
        self._lowercase = lowercase
        self._clean_text = clean_text
        self._characters = character_table.character_table(
            lowercase=lowercase,
            strip_accents=strip_accents,
            tokenize_chinese_chars=tokenize_chinese_chars,
            clean_text=clean_text,
        )
        # Longest first: where two match at one place, Hugging Face takes the longest and RE2 the first.
        self._special_tokens = dict(sorted(special_tokens.items(), key=lambda item: len(item[0]), reverse=True))
        self._special_pattern = "|".join(map(re.escape, self._special_tokens))
        self._max_length = max_length
        self._truncation = truncation
        self._wordpiece = tf_text.FastWordpieceTokenizer(
            list(vocabulary),
            unknown_token=unk_token,
            no_pretokenization=True,
            max_bytes_per_word=4 * _MAX_CHARS_PER_WORD,
            token_out_type=tf.int32,
        )

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Tokenizes strings of shape (batch,) to int32 ids of shape (batch, tokens), the second dimension ragged."""
        ids = self._tokenize(texts)
        return self._cut(ids, tf.minimum(ids.row_lengths() - 2, self._max_length - 2))

    def encode_pairs(self, texts: tf.Tensor, pairs: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Tokenizes two strings an example together: [CLS] text [SEP] pair [SEP].

        Of what is too long the longer text is shortened first, as `truncation.truncate_pair` does.

        Args:
            texts: The first texts, of shape (batch,).
            pairs: The second texts, of the same shape.

        Returns:
            int32 ids and token type ids, both of shape (batch, tokens), the second dimension ragged. Types are 0 up to
            the first [SEP] and 1 after it.
        """
        tf.debugging.assert_equal(tf.shape(texts), tf.shape(pairs), "`texts` and `pairs` must have the same shape.")
        first, second = self._tokenize(texts), self._tokenize(pairs)
        kept = _longest_first(first.row_lengths() - 2, second.row_lengths() - 2, room=self._max_length - 3)
        first, second = self._cut(first, kept[0]), self._cut(second, kept[1])[:, 1:]
        type_ids = tf.concat([tf.zeros_like(first), tf.ones_like(second)], axis=1)
        return tf.concat([first, second], axis=1), type_ids

    def _tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns all ids of [CLS] text [SEP]."""
        is_ascii = tf.strings.regex_full_match(texts, r"[\x00-\x7F]*")
        texts = _update(texts, ~is_ascii, lambda some: tf.strings.unicode_transcode(some, "UTF-8", "UTF-8"))
        texts = tf.strings.regex_replace(texts, self._special_pattern, _SEPARATOR + rb"\0" + _SEPARATOR)
        texts = tf.strings.join([self._cls_token, texts, self._sep_token], _SEPARATOR)
        # Each special token is a piece; what lies between two is tokenized as a text of its own.
        pieces = tf.strings.split(texts, _SEPARATOR)  # (batch, pieces)
        words, special_ids = self._split_words(pieces.flat_values)  # (all pieces, words), (all pieces,)
        wordpieces = self._wordpiece.tokenize(words.flat_values)  # (all words, wordpieces)

        piece_splits = tf.gather(wordpieces.row_splits, words.row_splits)
        is_special = special_ids >= 0
        ids = tf.tensor_scatter_nd_update(
            wordpieces.flat_values,
            tf.boolean_mask(piece_splits[:-1], is_special)[:, tf.newaxis],
            tf.boolean_mask(special_ids, is_special),
        )
        return tf.RaggedTensor.from_row_splits(ids, tf.gather(piece_splits, pieces.row_splits), validate=False)

    def _split_words(self, pieces: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Returns each piece's words and the id it has as a special token, else -1; a special one is one unknown word.

        The unknown token stands in because the wordpiece op makes exactly one id of it, in the place of the right one.
        """
        is_token = pieces[:, tf.newaxis] == list(self._special_tokens)
        special_ids = tf.reduce_max(tf.where(is_token, list(self._special_tokens.values()), -1), axis=1)
        is_ascii = tf.strings.length(pieces) == tf.strings.length(pieces, "UTF8_CHAR")
        normalized = _update(self._normalize_ascii(pieces), ~is_ascii, self._normalize)
        words = tf.strings.split(tf.where(special_ids >= 0, self._unk_token, normalized))
        is_long = tf.strings.length(words.flat_values, "UTF8_CHAR") > _MAX_CHARS_PER_WORD
        return words.with_flat_values(tf.where(is_long, self._unk_token, words.flat_values)), special_ids

    def _normalize_ascii(self, texts: tf.Tensor) -> tf.Tensor:
        """Does what `_normalize` does, for ASCII alone, in a third of the time."""
        if self._clean_text:
            texts = tf.strings.regex_replace(texts, _ASCII_CONTROLS, "")
        else:
            texts = tf.strings.regex_replace(texts, r"\x00", character_table.STAND_IN)
        if self._lowercase:
            texts = tf.strings.lower(texts)
        return tf.strings.regex_replace(texts, _ASCII_PUNCTUATION, r" \0 ")

    def _normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Cleans, lowers, drops accents and leaves ASCII white space between all words."""
        # The space keeps marks at the start of a text from being sorted among those at the end of the one before.
        codes = tf.strings.unicode_decode(tf.strings.join([" ", texts]), "UTF-8")  # (texts, characters)
        block, within = codes.flat_values // character_table.BLOCK, codes.flat_values % character_table.BLOCK
        index = tf.gather(self._characters.block_of, block) * character_table.BLOCK + within
        entries = tf.gather(self._characters.entries, index)  # (all characters, what each becomes)
        entries = tf.where(entries == character_table.ITSELF, codes.flat_values[:, tf.newaxis], entries)
        row_splits = codes.row_splits * tf.shape(entries, tf.int64)[1]
        entries = tf.reshape(entries, [-1])
        has_marks = tf.reduce_any(entries >= 1 << character_table.CODE_BITS)
        entries = tf.cond(has_marks, lambda: _sort_marks(entries), lambda: entries)

        is_kept = entries >= 0
        kept_before = tf.concat([[0], tf.cumsum(tf.cast(is_kept, tf.int64))], axis=0)
        codes = tf.RaggedTensor.from_row_splits(
            tf.boolean_mask(entries, is_kept), tf.gather(kept_before, row_splits), validate=False
        )
        return tf.strings.unicode_encode(codes, "UTF-8")

    def _cut(self, ids: tf.RaggedTensor, kept: tf.Tensor) -> tf.RaggedTensor:
        """Shortens [CLS] text [SEP] to as many tokens of each text as `kept` says; the special ones stay."""
        head = tf.zeros_like(kept) + from_start(kept, self._truncation)
        row_ids, index = ids.value_rowids(), tf.range(ids.row_splits[-1])
        before = index - tf.gather(ids.row_splits, row_ids)
        after = tf.gather(ids.row_splits, row_ids + 1) - 1 - index
        is_kept = (before <= tf.gather(head, row_ids)) | (after <= tf.gather(kept - head, row_ids))
        return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(ids.flat_values, is_kept), kept + 2, validate=False)


def _update(strings: tf.Tensor, where: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Returns `strings` with `function` of those where it says so."""
    indices = tf.where(where)
    return tf.tensor_scatter_nd_update(strings, indices, function(tf.gather_nd(strings, indices)))


def _sort_marks(entries: tf.Tensor) -> tf.Tensor:
    """Puts combining marks in a row into Unicode's canonical order and takes the order out of the entries."""
    order = tf.maximum(tf.bitwise.right_shift(entries, character_table.CODE_BITS), 0)
    is_mark = (order > 0) | (entries == character_table.NOTHING)
    row = tf.cumsum(tf.cast(~is_mark, tf.int64))
    by_row_and_order = tf.argsort(row * 1024 + tf.cast(order, tf.int64), stable=True)
    codes = tf.where(order > 0, tf.bitwise.bitwise_and(entries, (1 << character_table.CODE_BITS) - 1), entries)
    return tf.gather(codes, by_row_and_order)


def _longest_first(first: tf.Tensor, second: tf.Tensor, *, room: int) -> tuple[tf.Tensor, tf.Tensor]:
    """As `truncation.longest_first`, for lengths of shape (batch,)."""
    shorter = tf.minimum(tf.minimum(first, second), room // 2)
    kept_first = tf.where(first <= second, shorter, room - shorter)
    fits = first + second <= room
    return tf.where(fits, first, kept_first), tf.where(fits, second, room - kept_first)
