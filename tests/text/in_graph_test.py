import os
import pathlib
import random
import subprocess
import sys

import pytest
import tensorflow as tf
from in_graph_cases import (
    CASED,
    SPECIAL_TOKENS,
    UNCASED,
    Reference,
    Switches,
    in_graph,
    python_reads,
    random_bytes,
    random_text,
    vocabulary_of,
)

from tf_finetune.config import Truncation
from tf_finetune.text.in_graph import InGraphTokenizer

SETTINGS = {
    "uncased": UNCASED,
    "cased": CASED,
    "uncased_with_accents": Switches(True, strip_accents=False),
    "cased_without_accents": Switches(False, strip_accents=True),
    "chinese_in_words": Switches(True, tokenize_chinese_chars=False),
    "unclean": Switches(True, clean_text=False),
    "nothing_done": Switches(False, False, False, False),
}

HOSTILE_TEXTS = [
    "",
    " ",
    "\x00",
    "The playing cafés, un-played!",
    "ΟΔΟΣ ΟΔΟΣ. Σ ΑΣ\u0301 ΑΣ'Α",
    "İstanbul ISTANBUL ıIi Ìì J\u0307 ẞß ﬁ",
    "e\u0301 é E\u0301\u0327 \u0301 x\u0301\u0327\u302e",
    "中文the字 豈\U0002f800 \U0002b8ff中 한국어 が カ\u3099",
    "a\x00b a\u200bb a\xadb a\ufeffb a\ufffdb a\x85b a\x0bb a\x1cb a\u2028b a\u3000b",
    "…¿a?!—b…`^$+=<>|~\\\"'",
    "[CLS] [SEP][MASK]the[MASK]ing[UNK][PAD]",
    "[mask] [ MASK ] [MAS\u200bK] [MA\x00SK] [[MASK]] [MASK [SEP] ]MASK[",
    "[MASK]\u0301e [CLS",
    "ΑΣ[SEP]Α",
    "un[MASK]play \x01 \ufffd \U0010ffff \ue000",
    "e\U0001d16d\u302e e\U0001d16d\u0301\u302e e\U0001d16d\u034f\u302e \U0001d16d [SEP]\u302e \U0001d15e\u302e",
    "\ufdd0 a\uffff \U0010fffe\u0301 a\x11 \x11",
    "😀🇩🇪 1\ufe0f\u20e3 ½² № ™",
]


def _differing(switches: Switches, texts: list[str | bytes]) -> list[tuple]:
    """Returns (text, ids in the graph, ids by Hugging Face) wherever the two differ."""
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    read = python_reads(raw)
    vocabulary = vocabulary_of(read, switches)
    found = in_graph(vocabulary, switches)(tf.constant(raw)).to_list()
    expected = Reference(vocabulary, switches).encode(read)
    return [(text, *both) for text, *both in zip(raw, found, expected, strict=True) if both[0] != both[1]]


def _with_special_tokens(tokens: list[str], texts: list[str]) -> tuple[list, list]:
    """The ids of both, with these special tokens beside the usual."""
    vocabulary = list(dict.fromkeys(vocabulary_of(texts, UNCASED) + tokens))
    special_tokens = {token: vocabulary.index(token) for token in [*SPECIAL_TOKENS, *tokens]}
    tokenizer = InGraphTokenizer(
        vocabulary,
        **UNCASED._asdict(),
        max_length=1_000_000,
        truncation=Truncation.HEAD,
        special_tokens=special_tokens,
    )
    return tokenizer(tf.constant(texts)).to_list(), Reference(vocabulary, UNCASED, list(special_tokens)).encode(texts)


@pytest.mark.parametrize("switches", SETTINGS.values(), ids=SETTINGS)
def test_hostile_texts_match_hugging_face(switches):
    assert _differing(switches, HOSTILE_TEXTS) == []


@pytest.mark.parametrize("switches", SETTINGS.values(), ids=SETTINGS)
def test_random_texts_match_hugging_face(switches):
    rng = random.Random(20_240_229)
    assert _differing(switches, [random_text(rng) for _ in range(3_000)]) == []


@pytest.mark.parametrize("name", ["uncased", "cased", "uncased_with_accents", "unclean"])
def test_every_assigned_character_matches_hugging_face(name):
    """At the start of a text, between letters, doubled and among marks; `in_graph_parity.py` has each text alone."""
    codes = [*range(0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200)]
    words = [f"{c}a{c}b {c}{c} \U0001d16d{c}\u302e" for c in map(chr, codes)]
    assert _differing(SETTINGS[name], [" ".join(words[start : start + 32]) for start in range(0, len(words), 32)]) == []


@pytest.mark.parametrize("switches", [UNCASED, SETTINGS["unclean"]], ids=["clean", "unclean"])
def test_invalid_utf8_is_read_as_python_does(switches):
    rng = random.Random(0)
    texts = [b"a\xffb", b"\xe4\xb8", b"a\xe4\xb8b", b"a\xed\xa0\x80b", b"\xf0\x9f\x98", b"\xc0\x80", b"\xef\xbb\xbf"]
    texts += [b"a" + random_bytes(rng) + random_bytes(rng) + b"b" for _ in range(5_000)]
    assert _differing(switches, texts) == []


def test_marks_that_stay_are_sorted_only_within_their_letter():
    """U+1D16D has a higher class than U+302E; U+034F is dropped, and still stands between them."""
    high, low = "\U0001d16d", "\u302e"
    vocabulary = vocabulary_of(["e" + high + low], UNCASED)
    ids = in_graph(vocabulary, UNCASED)(
        tf.constant([f"e{high}{low}", f"e{low}{high}", f"e{high}\u034f{low}", low, high])
    )
    tokens = [[vocabulary[index] for index in text[1:-1]] for text in ids.to_list()]
    sorted_marks, as_written = ["e", f"##{low}", f"##{high}"], ["e", f"##{high}", f"##{low}"]
    assert tokens == [sorted_marks, sorted_marks, as_written, [low], [high]]


@pytest.mark.parametrize(
    "tokens",
    [
        ["[A]", "[A][B]", "[B]", "[B]c"],  # of two at one place the longest counts
        ["ab", "bc", "abc", "cab"],  # overlapping: the first one in the text
        ["a.c", "(x|y)*", "\\d+", "^[$]", "{2}", "# -", r"\0"],  # no regular expressions
        ["é", "中", "ÉÀ", "x y", "token " * 30 + "end"],  # matched as written
    ],
    ids=["longest", "first", "literal", "as_written"],
)
def test_special_tokens_are_found_as_hugging_face_finds_them(tokens):
    rng = random.Random(1)
    parts = [*tokens, *(token[:-1] for token in tokens), *(token.upper() for token in tokens), " ", "a", "abc", "é"]
    texts = ["".join(rng.choices(parts, k=rng.randrange(1, 7))) for _ in range(500)]
    found, expected = _with_special_tokens(tokens, texts)
    assert found == expected


@pytest.mark.parametrize("letter", ["e", "é", "ж", "ก", "\U0002b8ff"])
@pytest.mark.parametrize("switches", [UNCASED, CASED], ids=["uncased", "cased"])
def test_words_over_100_characters_are_unknown(switches, letter):
    texts = [f"the {letter * count} play" for count in (99, 100, 101, 500)]
    assert _differing(switches, texts) == []
    ids = in_graph(vocabulary_of(texts, switches), switches)(tf.constant(texts))
    lengths = ids.row_lengths().numpy().tolist()
    assert lengths == [99 + 4, 100 + 4, 1 + 4, 1 + 4]


def test_the_100_characters_are_counted_after_accents_are_dropped():
    texts = ["e\u0301" * 100, "é" * 100, "e\u0301" * 101]
    assert _differing(UNCASED, texts) == []
    assert in_graph(vocabulary_of(texts, UNCASED), UNCASED)(tf.constant(texts)).row_lengths().numpy().tolist() == [
        102,
        102,
        3,
    ]


@pytest.mark.parametrize("locale", ["tr_TR.UTF-8", pytest.param("lt_LT.UTF-8", marks=pytest.mark.slow)])
def test_the_locale_of_the_process_changes_nothing(locale):
    texts = ["I İ J Ì Í Ĩ Į I\u0307 J\u0301 Į\u0301 TITLE"]
    script = (
        "from tests.text.in_graph_test import SETTINGS, _differing; "
        f"differing = [_differing(SETTINGS[name], {texts}) for name in ('uncased', 'uncased_with_accents')]; "
        "assert not any(differing), differing"
    )
    root = pathlib.Path(__file__).parents[2]
    search_path = os.pathsep.join([str(root), str(root / "tests"), *sys.path])
    environment = os.environ | {"LC_ALL": locale, "PYTHONPATH": search_path, "PYTHONUTF8": "1"}
    process = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("max_length", [3, 4, 5, 7, 8, 20])
@pytest.mark.parametrize("truncation", Truncation)
def test_truncation_of_texts_and_of_pairs(truncation, max_length):
    rng = random.Random(max_length)
    texts = ["", "a", "a b", "a b c", "a b c d e f", "a b [MASK] d [SEP] f g", *HOSTILE_TEXTS]
    texts, pairs = [*texts, *rng.choices(texts, k=200)], [*texts, *rng.choices(texts, k=200)]
    vocabulary = vocabulary_of(texts, UNCASED)
    reference, tokenizer = Reference(vocabulary, UNCASED), in_graph(vocabulary, UNCASED, max_length, truncation)
    text_ids, pair_ids = reference.ids(texts), reference.ids(pairs)
    raw, raw_pairs = tf.constant(texts), tf.constant(pairs)
    assert tokenizer(raw).to_list() == reference.shorten(text_ids, max_length, truncation)
    ids, type_ids = tokenizer.encode_pairs(raw, raw_pairs)
    assert (ids.dtype, type_ids.dtype) == (tf.int32, tf.int32)
    expected = reference.shorten_pairs(text_ids, pair_ids, max_length, truncation)
    assert (ids.to_list(), type_ids.to_list()) == expected


def test_empty_pairs():
    tokenizer = in_graph([*SPECIAL_TOKENS, "a"], UNCASED)
    ids, type_ids = tokenizer.encode_pairs(tf.constant(["a", "", ""]), tf.constant(["", "a", ""]))
    assert ids.to_list() == [[2, 5, 3, 3], [2, 3, 5, 3], [2, 3, 3]]
    assert type_ids.to_list() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1]]


def test_no_pairs_at_all():
    ids, type_ids = in_graph(SPECIAL_TOKENS, UNCASED).encode_pairs(
        tf.constant([], tf.string), tf.constant([], tf.string)
    )
    assert (ids.to_list(), type_ids.to_list()) == ([], [])


def test_texts_without_their_pair():
    with pytest.raises(tf.errors.InvalidArgumentError, match="`texts` and `pairs` must have the same shape"):
        in_graph(SPECIAL_TOKENS, UNCASED).encode_pairs(tf.constant(["a", "b"]), tf.constant(["a"]))


def test_an_empty_batch_gives_no_rows():
    ids = in_graph(SPECIAL_TOKENS, UNCASED)(tf.constant([], tf.string))
    assert ids.to_list() == []
    assert ids.dtype == tf.int32


def test_a_batch_of_empty_texts_holds_only_cls_and_sep():
    assert in_graph(SPECIAL_TOKENS, UNCASED)(tf.constant(["", ""])).to_list() == [[2, 3], [2, 3]]


def test_saved_model_gives_the_same_ids_without_assets(tmp_path):
    module = tf.Module()
    tokenizer = in_graph(vocabulary_of(HOSTILE_TEXTS, UNCASED), UNCASED, max_length=16)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(texts):
        ids = tokenizer(texts)
        return ids.to_tensor(), ids.row_lengths()

    module.tokenize = tokenize
    texts = tf.constant([text.encode() for text in HOSTILE_TEXTS])
    expected_ids, expected_lengths = tokenize(texts)
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)

    ids, lengths = loaded.tokenize(texts)
    tf.debugging.assert_equal(ids, tokenizer(texts).to_tensor())
    tf.debugging.assert_equal(ids, expected_ids)
    tf.debugging.assert_equal(lengths, expected_lengths)
    assert loaded.tokenize(tf.constant([], tf.string))[0].shape[0] == 0
    assert list((tmp_path / "assets").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 2}, r"`max_length` must be at least 3.*max_length=2"),
        ({"unk_token": "<unk>"}, r"`unk_token` must be in `vocabulary`.*unk_token='<unk>'"),
        ({"vocabulary": ["[UNK]", "a\x11"]}, r"`vocabulary` must be without U\+0000, U\+0011.*Received: \['a\\x11'\]"),
        ({"vocabulary": ["[UNK]", "\ufdd0"]}, r"noncharacters"),
        ({"special_tokens": {"[CLS]": 1, "[SEP]": 2, "": 3}}, r"`special_tokens` must not be empty strings"),
        ({"sep_token": "</s>"}, r"`sep_token` must be in special_tokens=.*'</s>'"),
    ],
)
def test_unusable_arguments_are_named(changes, message):
    arguments = {
        "vocabulary": ["[UNK]", "[CLS]", "[SEP]", "a"],
        "lowercase": True,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "max_length": 8,
        "truncation": Truncation.HEAD,
        "special_tokens": {"[CLS]": 1, "[SEP]": 2},
    }
    with pytest.raises(ValueError, match=message):
        InGraphTokenizer(**(arguments | changes))
