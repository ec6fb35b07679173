import os
import pathlib
import random
import subprocess
import sys

import pytest
import tensorflow as tf
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from tf_finetune.config import Truncation
from tf_finetune.text.in_graph import InGraphTokenizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALPHABETS = {
    "ascii": "".join(chr(code) for code in range(0x21, 0x7F)),
    "latin": "ßÀÉÌÍĨĮİıàéìíĩįñøŁłſﬁ",
    "greek": "ΣσςΆάΑαΩω",
    "cyrillic": "ЁёЙйЖж",
    "hebrew": "אבגשׁ",
    "arabic": "ابتأَُّ",
    "devanagari": "कखक़्ि",
    "thai": "กขาี",
    "kana": "かがカガｶﾞ",
    "hangul": "한국\u1112\u1161\u11ab",
    "chinese": "中文字豈\u3400\U00020000\U0002b8ff\U0002f800",
    "marks": "\u0300\u0301\u0307\u0327\u302e\u20d0\u0903",
    "punctuation": "…–—“”¿¡。、·؟।\u37ef\u2e52",
    "symbols": "€©™½²№😀🇩\u20e3",
    "spaces": " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000",
    "controls": "\x00\x01\x1b\x7f\xad\u200b\u200d\u2060\ufeff\ufffd\ue000\U000e0041\u0378",
}
UNSEEN = {"spaces", "controls"}
LETTERS = sorted({letter for name, letters in ALPHABETS.items() if name not in UNSEEN for letter in letters})
WORDS = ["the", "The", "play", "##ing", "##ed", "un", "##play", "mask", "cafe", "café", "οδος", "##ος", "한", "中文"]
VOCABULARY = list(dict.fromkeys(SPECIAL_TOKENS + LETTERS + [f"##{letter}" for letter in LETTERS] + WORDS))

# lowercase, strip_accents, tokenize_chinese_chars, clean_text
UNCASED = (True, None, True, True)
CASED = (False, None, True, True)
SETTINGS = {
    "uncased": UNCASED,
    "cased": CASED,
    "uncased_with_accents": (True, False, True, True),
    "cased_without_accents": (False, True, True, True),
    "chinese_in_words": (True, None, False, True),
    "unclean": (True, None, True, False),
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
    "😀🇩🇪 1\ufe0f\u20e3 ½² № ™",
]


def _reference(settings: tuple) -> tokenizers.Tokenizer:
    lowercase, strip_accents, tokenize_chinese_chars, clean_text = settings
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    reference = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    reference.normalizer = normalizers.BertNormalizer(
        clean_text=clean_text,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    reference.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    reference.add_special_tokens(SPECIAL_TOKENS)
    return reference


def _in_graph(settings: tuple, max_length: int = 1_000_000, truncation: Truncation = Truncation.HEAD):
    lowercase, strip_accents, tokenize_chinese_chars, clean_text = settings
    return InGraphTokenizer(
        VOCABULARY,
        lowercase=lowercase,
        strip_accents=strip_accents,
        tokenize_chinese_chars=tokenize_chinese_chars,
        clean_text=clean_text,
        max_length=max_length,
        truncation=truncation,
        special_tokens={token: VOCABULARY.index(token) for token in SPECIAL_TOKENS},
    )


def _differing(settings: tuple, texts: list[str]) -> list[tuple]:
    """Returns (text, ids in the graph, ids by Hugging Face) wherever the two differ."""
    found = _in_graph(settings)(tf.constant([text.encode() for text in texts])).to_list()
    expected = [encoding.ids for encoding in _reference(settings).encode_batch(texts)]
    return [(ascii(text), *both) for text, *both in zip(texts, found, expected, strict=True) if both[0] != both[1]]


def _random_text(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.randrange(8)
        if kind == 0:
            parts.append(rng.choice(SPECIAL_TOKENS + ["[mask]", "[", "]", "SEP]", "[CL"]))
        elif kind == 1:
            parts.append(rng.choice(WORDS))
        elif kind == 2:
            parts.append(chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])))
        else:
            letters = ALPHABETS[rng.choice(list(ALPHABETS))]
            parts.extend(rng.choice(letters) for _ in range(rng.randrange(1, 6)))
        if rng.random() < 0.3:
            parts.append(rng.choice(ALPHABETS["spaces"]))
    return "".join(parts)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_hostile_texts_match_hugging_face(settings):
    assert _differing(settings, HOSTILE_TEXTS) == []


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_random_texts_match_hugging_face(settings):
    rng = random.Random(20_240_229)
    assert _differing(settings, [_random_text(rng) for _ in range(5_000)]) == []


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_code_point_between_letters_matches_hugging_face(settings):
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    words = [f"a{chr(code)}b" for code in codes]
    lines = [" ".join(words[start : start + 64]) for start in range(0, len(words), 64)]
    assert _differing(settings, lines) == []


@pytest.mark.parametrize("letter", ["e", "é", "ж", "ก", "\U0002b8ff"])
@pytest.mark.parametrize("settings", [UNCASED, CASED], ids=["uncased", "cased"])
def test_words_over_100_characters_are_unknown(settings, letter):
    texts = [f"the {letter * count} play" for count in (99, 100, 101, 500)]
    assert _differing(settings, texts) == []
    ids = _in_graph(settings)(tf.constant(texts))
    lengths = ids.row_lengths().numpy().tolist()
    assert lengths == [99 + 4, 100 + 4, 1 + 4, 1 + 4]


def test_the_100_characters_are_counted_after_accents_are_dropped():
    texts = ["e\u0301" * 100, "é" * 100, "e\u0301" * 101]
    assert _differing(UNCASED, texts) == []
    assert _in_graph(UNCASED)(tf.constant(texts)).row_lengths().numpy().tolist() == [102, 102, 3]


@pytest.mark.parametrize("settings", [UNCASED, SETTINGS["unclean"]], ids=["clean", "unclean"])
def test_invalid_utf8_is_replaced_as_python_does(settings):
    texts = [b"a\xffb", b"\xe4\xb8", b"a\xe4\xb8b", b"a\xed\xa0\x80b", b"\xf0\x9f\x98", b"\xc0\x80", b"\xef\xbb\xbf"]
    expected = [_reference(settings).encode(text.decode("utf-8", "replace")).ids for text in texts]
    assert _in_graph(settings)(tf.constant(texts)).to_list() == expected


@pytest.mark.parametrize("locale", ["tr_TR.UTF-8", "lt_LT.UTF-8"])
def test_the_locale_of_the_process_changes_nothing(locale):
    texts = ["I İ J Ì Í Ĩ Į I\u0307 J\u0301 Į\u0301 TITLE"]
    settings = SETTINGS["uncased_with_accents"]
    script = (
        "from tests.text.in_graph_test import _differing; "
        f"differing = _differing({settings}, {texts}) + _differing({UNCASED}, {texts}); "
        "assert not differing, differing"
    )
    search_path = os.pathsep.join([str(pathlib.Path(__file__).parents[2]), *sys.path])
    environment = os.environ | {"LC_ALL": locale, "PYTHONPATH": search_path, "PYTHONUTF8": "1"}
    process = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("max_length", [3, 4, 7, 8, 20])
@pytest.mark.parametrize("truncation", Truncation)
def test_truncation_keeps_what_it_says(truncation, max_length):
    texts = ["", "a", "a b", "a b c", "a b c d e f", "a b [MASK] d [SEP] f g"] + HOSTILE_TEXTS
    body_length = max_length - 2
    head_length = {Truncation.HEAD: body_length, Truncation.TAIL: 0, Truncation.HEAD_TAIL: body_length // 4}[truncation]
    expected = []
    for encoding in _reference(UNCASED).encode_batch(texts):
        cls, *body, sep = encoding.ids
        if len(body) > body_length:
            body = body[:head_length] + body[len(body) - (body_length - head_length) :]
        expected.append([cls, *body, sep])
    ids = _in_graph(UNCASED, max_length, truncation)(tf.constant([text.encode() for text in texts]))
    assert ids.to_list() == expected


def test_an_empty_batch_gives_no_rows():
    ids = _in_graph(UNCASED)(tf.constant([], tf.string))
    assert ids.to_list() == []
    assert ids.dtype == tf.int32


def test_a_batch_of_empty_texts_holds_only_cls_and_sep():
    assert _in_graph(UNCASED)(tf.constant(["", ""])).to_list() == [[2, 3], [2, 3]]


def test_saved_model_gives_the_same_ids_without_assets(tmp_path):
    module = tf.Module()
    tokenizer = _in_graph(UNCASED, max_length=16)

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
        ({"sep_token": "</s>"}, r"`sep_token` must be in special_tokens=.*'</s>'"),
    ],
)
def test_unusable_arguments_are_named(changes, message):
    arguments = {
        "lowercase": True,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "max_length": 8,
        "truncation": Truncation.HEAD,
        "special_tokens": {"[CLS]": 1, "[SEP]": 2},
    }
    with pytest.raises(ValueError, match=message):
        InGraphTokenizer(["[UNK]", "[CLS]", "[SEP]", "a"], **(arguments | changes))
