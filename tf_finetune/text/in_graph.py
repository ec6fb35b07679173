"""BERT's tokenizer as TensorFlow ops: the half of an exported model that turns text into input ids."""

import re
from collections.abc import Mapping, Sequence

import tensorflow as tf
import tensorflow_text as tf_text

from tf_finetune.config import Truncation

# Hugging Face decides what a character is by its own tables, those of Unicode 8.0 from 2015. TensorFlow's are newer and
# differ between its versions, so the classes below are probed from `tokenizers`: fixed ones are spelled out, the long
# ones start from TensorFlow's and leave out whatever was assigned later (`[^\P{Mn}...]` reads "Mn, but not ...").

# What clean_text drops: NUL, U+FFFD and the categories Cc, Cf and Co, without tab, newline and carriage return.
_REMOVED = (
    r"[\x{0}-\x{8}\x{B}\x{C}\x{E}-\x{1F}\x{7F}-\x{9F}\x{AD}\x{600}-\x{605}\x{61C}\x{6DD}\x{70F}\x{180E}"
    r"\x{200B}-\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}\x{2066}-\x{206F}\x{E000}-\x{F8FF}\x{FEFF}"
    r"\x{FFF9}-\x{FFFB}\x{FFFD}\x{110BD}\x{1BCA0}-\x{1BCA3}\x{1D173}-\x{1D17A}\x{E0001}\x{E0020}-\x{E007F}"
    r"\x{F0000}-\x{FFFFD}\x{100000}-\x{10FFFD}]"
)
# White space beyond ASCII's, which tf.strings.split knows by itself.
_WIDE_SPACE = r"[\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
# The accents strip_accents drops: nonspacing marks.
_ACCENTS = (
    r"[^\P{Mn}\x{7FD}\x{898}-\x{8E1}\x{9FE}\x{AFA}-\x{AFF}\x{B55}\x{C04}-\x{C3C}\x{D00}\x{D3B}-\x{D3C}\x{D81}\x{EBA}"
    r"\x{ECE}\x{180F}-\x{1886}\x{1ABF}-\x{1ACE}\x{1DF6}-\x{1DFB}\x{A82C}\x{A8C5}\x{A8FF}\x{A9BD}\x{10D24}-\x{10F85}"
    r"\x{11070}-\x{11074}\x{110C2}\x{111C9}\x{111CF}\x{1123E}-\x{11241}\x{1133B}\x{11438}-\x{1145E}"
    r"\x{1182F}-\x{13455}\x{16F4F}\x{16FE4}\x{1CF00}-\x{1CF46}\x{1E000}-\x{1E4EF}\x{1E944}-\x{1E94A}]|\x{1734}"
)
# Each a word of its own: punctuation, and every symbol of ASCII.
_PUNCTUATION = (
    r"[^\P{P}\x{61D}\x{9FD}-\x{A76}\x{C77}-\x{C84}\x{1B7D}-\x{1B7E}\x{2E43}-\x{2E5D}\x{10EAD}-\x{10F89}"
    r"\x{1144B}-\x{1145D}\x{11660}-\x{116B9}\x{1183B}-\x{11FFF}\x{12FF1}-\x{12FF2}\x{16E97}-\x{16FE2}"
    r"\x{1E95E}-\x{1E95F}]|[$+<=>^`|~\x{166D}\x{111C9}]"
)
# So is each ideograph. U+2B820 to U+2B91F are missing on purpose: Hugging Face leaves them out.
_IDEOGRAPHS = (
    r"[\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B81F}"
    r"\x{2B920}-\x{2CEAF}\x{2F800}-\x{2FA1F}]"
)

# NUL is free to separate pieces of text because it is never in one: tf.strings.lower would cut the text there. U+0001
# stands in for it: clean_text drops both, and without clean_text a word with either is unknown.
_SEPARATOR = "\0"
_NUL_STAND_IN = (r"\x{0}", "\x01")

# Lowered by hand, because tf.strings.lower follows context (a final sigma) and the process's locale: under LC_ALL=tr_TR
# it turns I into a dotless i, under lt_LT it adds dots. Without ASCII's I and J, lowered first, these are all it takes.
_FINAL_SIGMA = ("Σ", "σ")
_LETTERS_OF_LOCALES = (("İ", "i\u0307"), ("Ì", "ì"), ("Í", "í"), ("Ĩ", "ĩ"), ("Į", "į"))

_MAX_CHARS_PER_WORD = 100  # Hugging Face's max_input_chars_per_word; longer words are unknown


class InGraphTokenizer:
    """Turns a batch of strings into the input ids of Hugging Face's BERT tokenizer, in TensorFlow ops alone.

    Matches `tokenizers` with BertNormalizer, BertPreTokenizer and WordPiece (`BertTokenizerFast`), special tokens
    written out in the text included. Invalid UTF-8 is read as `bytes.decode("utf-8", "replace")` does. Only characters
    of which one side's Unicode has never heard can differ: some letters added since Unicode 12 are lowered, or taken
    apart, by Hugging Face and not by TensorFlow or the other way round, which shows in a vocabulary that holds them.

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
            `sep_token` are among them.
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

        self._cls_token = cls_token
        self._sep_token = sep_token
        self._unk_token = unk_token
        self._lowercase = lowercase
        self._strip_accents = lowercase if strip_accents is None else strip_accents
        self._clean_text = clean_text
        self._special_tokens = dict(special_tokens)
        # Longest first: where two match at one place, Hugging Face takes the longest and RE2 the first.
        self._special_pattern = "|".join(map(re.escape, sorted(special_tokens, key=len, reverse=True)))
        self._lone_pattern = f"{_PUNCTUATION}|{_IDEOGRAPHS}" if tokenize_chinese_chars else _PUNCTUATION
        self._max_length = max_length
        self._head_length, self._tail_length = _kept_lengths(max_length, truncation)
        self._wordpiece = tf_text.FastWordpieceTokenizer(
            list(vocabulary),
            unknown_token=unk_token,
            no_pretokenization=True,
            max_bytes_per_word=4 * _MAX_CHARS_PER_WORD,
            token_out_type=tf.int32,
        )

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Tokenizes strings of shape (batch,) to int32 ids of shape (batch, tokens), the second dimension ragged."""
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        texts = tf.strings.regex_replace(texts, *_NUL_STAND_IN)
        texts = tf.strings.regex_replace(texts, self._special_pattern, _SEPARATOR + r"\0" + _SEPARATOR)
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
        return self._truncate(ids, tf.gather(piece_splits, pieces.row_splits))

    def _split_words(self, pieces: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Returns each piece's words and the id it has as a special token, else -1; a special one is one unknown word.

        The unknown token stands in because the wordpiece op makes exactly one id of it, in the place of the right one.
        """
        special_ids = tf.fill(tf.shape(pieces), -1)
        for token, token_id in self._special_tokens.items():
            special_ids = tf.where(pieces == token, token_id, special_ids)
        words = tf.strings.split(tf.where(special_ids >= 0, self._unk_token, self._normalize(pieces)))
        is_long = tf.strings.length(words.flat_values, "UTF8_CHAR") > _MAX_CHARS_PER_WORD
        return words.with_flat_values(tf.where(is_long, self._unk_token, words.flat_values)), special_ids

    def _normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Cleans, lowers and leaves ASCII white space between all words."""
        if self._clean_text:
            texts = tf.strings.regex_replace(texts, _REMOVED, "")
        if self._strip_accents:
            texts = tf_text.normalize_utf8(texts, "NFD")
            texts = tf.strings.regex_replace(texts, _ACCENTS, "")
        if self._lowercase:
            texts = tf.strings.lower(texts)
            by_hand = (_FINAL_SIGMA,) if self._strip_accents else (_FINAL_SIGMA, *_LETTERS_OF_LOCALES)
            for upper, lower in by_hand:
                texts = tf.strings.regex_replace(texts, upper, lower)
            texts = tf.strings.lower(texts, encoding="utf-8")
        texts = tf.strings.regex_replace(texts, _WIDE_SPACE, " ")
        return tf.strings.regex_replace(texts, self._lone_pattern, r" \0 ")

    def _truncate(self, ids: tf.Tensor, row_splits: tf.Tensor) -> tf.RaggedTensor:
        lengths = row_splits[1:] - row_splits[:-1]
        index = tf.range(row_splits[-1])
        from_start = index - tf.repeat(row_splits[:-1], lengths)
        from_end = tf.repeat(row_splits[1:], lengths) - index  # 1 at the last token
        keep = (from_start < self._head_length) | (from_end <= self._tail_length)
        kept_lengths = tf.minimum(lengths, self._max_length)
        return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(ids, keep), kept_lengths, validate=False)


def _kept_lengths(max_length: int, truncation: Truncation) -> tuple[int, int]:
    """Returns how many ids are kept from the start, [CLS] included, and from the end, [SEP] included."""
    body_length = max_length - 2
    if truncation is Truncation.HEAD:
        head_length = body_length
    elif truncation is Truncation.TAIL:
        head_length = 0
    else:
        head_length = body_length // 4
    return 1 + head_length, 1 + body_length - head_length
