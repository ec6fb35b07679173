import json

import numpy as np
import pytest
import tensorflow as tf
import transformers
from tokenizer_folders import LAYOUTS, VOCABULARY, write_tokens, write_vocabulary
from tokenizers import AddedToken, pre_tokenizers

from tf_finetune.config import Truncation
from tf_finetune.errors import InputError
from tf_finetune.text import tokenizer as tokenizer_module
from tf_finetune.text.in_graph import InGraphTokenizer
from tf_finetune.text.tokenizer import Tokenizer

CLS, SEP, THE = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]"), VOCABULARY.index("the")
TEXTS = ["The playing!", "", "Café, unplayed 中the", "the [MASK] the", "the " * 40, "nowhere"]


@pytest.fixture(params=list(LAYOUTS))
def folder(request, tmp_path):
    LAYOUTS[request.param](tmp_path)
    return tmp_path


@pytest.fixture
def tokenizer(folder):
    return Tokenizer(folder)


def encode(tokenizer, texts, max_length=512, truncation=Truncation.HEAD):
    return tokenizer.encode(texts, max_length=max_length, truncation=truncation)


def encode_pairs(tokenizer, texts, pairs, max_length=512, truncation=Truncation.HEAD):
    return tokenizer.encode_pairs(texts, pairs, max_length=max_length, truncation=truncation)


class TestEncode:
    def test_by_hand(self, tokenizer):
        tokens = [VOCABULARY[index] for index in encode(tokenizer, ["The playing, CAFÉ!"])[0]]
        assert tokens == ["[CLS]", "the", "play", "##ing", ",", "cafe", "!", "[SEP]"]

    def test_special_token_in_the_text(self, tokenizer):
        assert encode(tokenizer, ["the [MASK]"]) == [[CLS, THE, VOCABULARY.index("[MASK]"), SEP]]

    def test_unknown_word(self, tokenizer):
        assert encode(tokenizer, ["nowhere"]) == [[CLS, VOCABULARY.index("[UNK]"), SEP]]

    def test_unknown_id(self, tokenizer):
        assert tokenizer.unknown_id == VOCABULARY.index("[UNK]")
        assert tokenizer.unknown_id in encode(tokenizer, ["nowhere"])[0]

    def test_empty_text(self, tokenizer):
        assert encode(tokenizer, [""]) == [[CLS, SEP]]

    def test_no_texts(self, tokenizer):
        assert encode(tokenizer, []) == []

    def test_baked_in_padding_and_truncation_are_off(self, tokenizer):
        assert [len(ids) for ids in encode(tokenizer, ["the", "the " * 40])] == [3, 42]

    def test_max_length(self, tokenizer):
        assert encode(tokenizer, ["the " * 40], max_length=5) == [[CLS, THE, THE, THE, SEP]]

    def test_head_and_tail_are_of_the_text(self, tokenizer):
        text = "play play the the ! !"
        head, tail = (
            encode(tokenizer, [text], max_length=4, truncation=cut)[0] for cut in (Truncation.HEAD, Truncation.TAIL)
        )
        assert [VOCABULARY[index] for index in head] == ["[CLS]", "play", "play", "[SEP]"]
        assert [VOCABULARY[index] for index in tail] == ["[CLS]", "!", "!", "[SEP]"]

    def test_lone_surrogates_are_read_as_their_bytes(self, tokenizer):
        """As an export reads them, where they can come only as bytes."""
        text = "the \udc80[MASK] pl\ud800ay"
        read = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        assert read.count("\ufffd") == 6
        ids = [CLS, THE, VOCABULARY.index("[MASK]"), VOCABULARY.index("play"), SEP]
        assert encode(tokenizer, [text, read]) == [ids, ids]
        assert encode_pairs(tokenizer, [text], [text]) == encode_pairs(tokenizer, [read], [read])
        raw = tf.constant([text.encode("utf-8", "surrogatepass")])
        in_graph = InGraphTokenizer(**tokenizer.in_graph_options(), max_length=9, truncation=Truncation.HEAD)
        assert in_graph(raw).to_list() == [ids]

    @pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])
    def test_both_layouts_give_the_same_ids(self, tmp_path, lowercase):
        ids = {}
        for name, write in LAYOUTS.items():
            (tmp_path / name).mkdir()
            write(tmp_path / name, lowercase=lowercase)
            ids[name] = encode(Tokenizer(tmp_path / name), TEXTS)
        assert ids["tokenizer_json"] == ids["vocabulary"]


class TestEncodePairs:
    def test_by_hand(self, tokenizer):
        ids, type_ids = encode_pairs(tokenizer, ["The playing!"], ["CAFÉ, the"])
        assert [VOCABULARY[index] for index in ids[0]] == [
            "[CLS]", "the", "play", "##ing", "!", "[SEP]", "cafe", ",", "the", "[SEP]",
        ]  # fmt: skip
        assert type_ids == [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1]]

    def test_empty_texts(self, tokenizer):
        ids, type_ids = encode_pairs(tokenizer, ["the", "", ""], ["", "the", ""])
        assert ids == [[CLS, THE, SEP, SEP], [CLS, SEP, THE, SEP], [CLS, SEP, SEP]]
        assert type_ids == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1]]

    def test_no_texts(self, tokenizer):
        assert encode_pairs(tokenizer, [], []) == ([], [])

    def test_special_token_in_the_text(self, tokenizer):
        """Types count the parts, not the [SEP]s somebody wrote."""
        ids, type_ids = encode_pairs(tokenizer, ["the [SEP]"], ["[CLS]"])
        assert (ids, type_ids) == ([[CLS, THE, SEP, SEP, CLS, SEP]], [[0, 0, 0, 0, 1, 1]])

    def test_head_tail(self, tokenizer):
        first, second = "the " + "play " * 8 + "!", ", un " + "play " * 12 + "cafe !"
        ids, type_ids = encode_pairs(tokenizer, [first], [second], 15, Truncation.HEAD_TAIL)
        assert [VOCABULARY[index] for index in ids[0]] == [
            "[CLS]", "the", "play", "play", "play", "play", "!", "[SEP]",
            ",", "play", "play", "play", "cafe", "!", "[SEP]",
        ]  # fmt: skip
        assert type_ids == [[0] * 8 + [1] * 7]

    def test_chunks_come_together_in_order(self, tokenizer, monkeypatch):
        texts, pairs = TEXTS * 2, TEXTS[::-1] * 2
        whole = encode_pairs(tokenizer, texts, pairs, max_length=9)
        monkeypatch.setattr(tokenizer_module, "CHUNK", 5)
        assert encode_pairs(tokenizer, texts, pairs, max_length=9) == whole
        assert len(whole[0]) == len(whole[1]) == len(texts)

    @pytest.mark.parametrize(("texts", "pairs"), [(2, 1), (1, 2), (0, 1), (1, 0)])
    def test_texts_without_their_pair(self, tokenizer, texts, pairs):
        with pytest.raises(InputError) as caught:
            encode_pairs(tokenizer, ["the"] * texts, ["the"] * pairs)
        assert str(caught.value) == f"texts without their pair, expected {texts} second texts, got {pairs}"


class TestLocate:
    MIXED = [
        *TEXTS,
        "un" * 9 + " play" * 9,
        "a \udc80 the\ud800 [SEP] play",
        "é e\u0301 İ 한 中中 \x1b \u200bpl\u200bay",
    ]

    @pytest.mark.parametrize("truncation", list(Truncation))
    @pytest.mark.parametrize("max_length", [3, 4, 7, 8, 512])
    def test_ids_of_texts(self, tokenizer, truncation, max_length):
        options = {"max_length": max_length, "truncation": truncation}
        for text, expected in zip(self.MIXED, tokenizer.encode(self.MIXED, **options), strict=True):
            tokens, was_cut = tokenizer.locate(text, **options)
            assert [token.id for token in tokens] == expected
            assert {token.side for token in tokens} == {0}
            assert was_cut == (len(encode(tokenizer, [text])[0]) > max_length)

    @pytest.mark.parametrize("truncation", list(Truncation))
    @pytest.mark.parametrize("max_length", [3, 4, 7, 8, 15, 512])
    def test_ids_of_pairs(self, tokenizer, truncation, max_length):
        options = {"max_length": max_length, "truncation": truncation}
        texts, pairs = self.MIXED, self.MIXED[::-1]
        encoded = tokenizer.encode_pairs(texts, pairs, **options)
        for text, pair, ids, types in zip(texts, pairs, *encoded, strict=True):
            tokens, was_cut = tokenizer.locate(text, pair, **options)
            assert [token.id for token in tokens] == ids
            assert [token.side for token in tokens] == types
            assert was_cut == (len(encode_pairs(tokenizer, [text], [pair])[0][0]) > max_length)

    def located(self, tokenizer, *texts, **options):
        tokens, _ = tokenizer.locate(*texts, **{"max_length": 512, "truncation": Truncation.HEAD} | options)
        return [(token.side, token.word, token.span and texts[token.side][slice(*token.span)]) for token in tokens]

    def test_pieces_and_words(self, tokenizer):
        assert self.located(tokenizer, "The  Playing!", "the [MASK]") == [
            (0, None, None), (0, 0, "The"), (0, 1, "Play"), (0, 1, "ing"), (0, 2, "!"), (0, None, None),
            (1, 0, "the"), (1, 1, "[MASK]"), (1, None, None),
        ]  # fmt: skip

    def test_special_tokens_that_somebody_wrote_are_text(self, tokenizer):
        assert self.located(tokenizer, "[CLS] the [SEP]")[1:-1] == [(0, 0, "[CLS]"), (0, 1, "the"), (0, 2, "[SEP]")]

    def test_what_is_left_keeps_its_place(self, tokenizer):
        cut = self.located(tokenizer, "the play un cafe", max_length=4, truncation=Truncation.TAIL)
        assert cut[1:-1] == [(0, 2, "un"), (0, 3, "cafe")]

    def test_lone_surrogates_count_as_the_one_character_that_they_are(self, tokenizer):
        found = self.located(tokenizer, "the \udc80 pl\ud800ay the")
        assert [piece for _, _, piece in found[1:-1]] == ["the", "pl\ud800ay", "the"]

    def test_accents_that_are_taken_off_keep_their_letters(self, tokenizer):
        assert [piece for _, _, piece in self.located(tokenizer, "the CAFÉ the")[1:-1]] == ["the", "CAFÉ", "the"]

    def test_too_short_for_a_pair(self, tokenizer):
        with pytest.raises(
            InputError, match="too short for a pair of texts, expected a max_length of at least 3, got 2"
        ):
            tokenizer.locate("the", "the", max_length=2, truncation=Truncation.HEAD)


@pytest.mark.parametrize(("truncation", "side"), [(Truncation.HEAD, "right"), (Truncation.TAIL, "left")])
class TestPairsLikeTransformers:
    """Every word is another one, so that it shows which were taken."""

    WORDS = [letter + more for letter in "abcdefgh" for more in "ijklmnopqrstuvwxyz"]
    FIRST, SECOND = WORDS[:70], WORDS[70:]

    def assert_equal(self, folder, texts, pairs, *, max_length, truncation, side):
        write_vocabulary(folder, vocabulary=VOCABULARY[:5] + self.WORDS)
        theirs = transformers.BertTokenizer.from_pretrained(folder, truncation_side=side)(
            texts, pairs, truncation=True, max_length=max_length
        )
        ids, type_ids = encode_pairs(Tokenizer(folder), texts, pairs, max_length, truncation)
        assert ids == theirs["input_ids"]
        assert type_ids == theirs["token_type_ids"]

    @pytest.mark.parametrize("max_length", range(3, 24))
    def test_every_pair_of_short_lengths(self, tmp_path, truncation, side, max_length):
        lengths = [(first, second) for first in range(11) for second in range(11)]
        texts = [" ".join(self.FIRST[:first]) for first, _ in lengths]
        pairs = [" ".join(self.SECOND[:second]) for _, second in lengths]
        self.assert_equal(tmp_path, texts, pairs, max_length=max_length, truncation=truncation, side=side)

    @pytest.mark.parametrize("max_length", [16, 47, 64, 99, 128, 141, 142])
    def test_long_ones(self, tmp_path, truncation, side, max_length):
        lengths = np.random.default_rng(max_length).integers(0, 71, size=(200, 2))
        texts = [" ".join(self.FIRST[:first]) for first in lengths[:, 0]]
        pairs = [" ".join(self.SECOND[:second]) for second in lengths[:, 1]]
        self.assert_equal(tmp_path, texts, pairs, max_length=max_length, truncation=truncation, side=side)


class TestSavePretrained:
    def test_reload_gives_the_same_ids(self, tokenizer, tmp_path):
        tokenizer.save_pretrained(tmp_path / "saved")
        assert encode(Tokenizer(tmp_path / "saved"), TEXTS) == encode(tokenizer, TEXTS)

    def test_files(self, tokenizer, tmp_path):
        tokenizer.save_pretrained(tmp_path / "saved")
        assert {path.name for path in (tmp_path / "saved").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}

    def test_saved_tokenizer_pads_and_truncates_nothing(self, tokenizer, tmp_path):
        tokenizer.save_pretrained(tmp_path / "saved")
        saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
        assert (saved["padding"], saved["truncation"]) == (None, None)

    def test_cased_stays_cased(self, tmp_path):
        write_vocabulary(tmp_path, lowercase=False)
        Tokenizer(tmp_path).save_pretrained(tmp_path / "saved")
        assert encode(Tokenizer(tmp_path / "saved"), ["The"]) == [[CLS, VOCABULARY.index("The"), SEP]]


class TestFiles:
    @pytest.mark.parametrize("as_text", [True, False])
    def test_missing(self, tmp_path, as_text):
        expected = "checkpoint has no tokenizer, in .*, expected tokenizer.json or vocab.txt"
        with pytest.raises(InputError, match=expected):
            Tokenizer(str(tmp_path) if as_text else tmp_path)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(InputError, match="checkpoint has no tokenizer"):
            Tokenizer(tmp_path / "absent")

    def test_google_release(self, tmp_path):
        """No tokenizer_config.json, no config.json; the capital letters in the vocabulary say that it is cased."""
        write_tokens(tmp_path)
        (tmp_path / "bert_config.json").write_text("{}")
        (tmp_path / "bert_model.ckpt.index").touch()
        assert encode(Tokenizer(tmp_path), ["The"]) == [[CLS, VOCABULARY.index("The"), SEP]]

    def test_verbosity_of_transformers_is_left_as_it_was(self, folder):
        before = transformers.logging.get_verbosity()
        Tokenizer(folder)
        assert transformers.logging.get_verbosity() == before


class TestProperties:
    def test_vocabulary_in_the_order_of_ids(self, tokenizer):
        assert tokenizer.vocabulary == VOCABULARY

    def test_an_id_without_a_token_keeps_its_place(self, tmp_path):
        """A word that stands twice in vocab.txt has one id, the later one; the earlier is nobody's."""
        write_vocabulary(tmp_path)
        (tmp_path / "vocab.txt").write_text(
            "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "the", "a"])
        )
        tokenizer = Tokenizer(tmp_path)
        ids = tokenizer.fast.get_vocab()
        assert [tokenizer.vocabulary[ids[token]] for token in ("the", "a", "[SEP]")] == ["the", "a", "[SEP]"]
        assert len(tokenizer.vocabulary) == 8

    @pytest.mark.parametrize("layout", list(LAYOUTS))
    @pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])
    def test_in_graph_options(self, tmp_path, layout, lowercase):
        LAYOUTS[layout](tmp_path, lowercase=lowercase)
        assert Tokenizer(tmp_path).in_graph_options() == {
            "vocabulary": VOCABULARY,
            "lowercase": lowercase,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "clean_text": True,
            "special_tokens": {token: index for index, token in enumerate(VOCABULARY[:5])},
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
        }


class TestInGraphOptions:
    def options(self, tokenizer):
        return tokenizer.in_graph_options() | {"max_length": 64, "truncation": Truncation.HEAD}

    def assert_refused(self, tokenizer, message):
        with pytest.raises(InputError) as caught:
            tokenizer.in_graph_options()
        assert str(caught.value).replace(str(tokenizer.folder), "FOLDER") == message

    @pytest.mark.parametrize("flags", [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}])
    def test_added_special_tokens(self, tokenizer, flags):
        tokenizer.fast.add_special_tokens([AddedToken("thé", **flags), AddedToken("<a|b>", **flags)])
        texts = ["the thé thé\t<a|b>", " \u3000<a|b> the<a|b>\xa0thé", "THÉ <A|B> <a|b", "unthé [MASK]thé"]
        ids = InGraphTokenizer(**self.options(tokenizer))(tf.constant(texts)).to_list()
        assert ids == encode(tokenizer, texts)
        assert {len(VOCABULARY), len(VOCABULARY) + 1} <= set(sum(ids, []))

    def test_an_added_token_is_no_word_of_the_vocabulary(self, tokenizer):
        """ "FILM" becomes "film" after the added tokens were looked for, and the vocabulary has no such word."""
        tokenizer.fast.add_special_tokens(["film", "##ful"])
        texts = ["film FILM", "playful playFUL the##ful"]
        ids = InGraphTokenizer(**self.options(tokenizer))(tf.constant(texts)).to_list()
        assert ids == encode(tokenizer, texts)
        assert ids[0] == [CLS, len(VOCABULARY), VOCABULARY.index("[UNK]"), SEP]

    @pytest.mark.parametrize(
        ("token", "got"),
        [
            (AddedToken("film", normalized=True), "normalized"),
            (AddedToken("film", normalized=False, single_word=True), "single_word"),
            (AddedToken("film ", normalized=False), "white space"),
        ],
        ids=["normalized", "single_word", "white_space"],
    )
    def test_refused_tokens(self, tokenizer, token, got):
        tokenizer.fast.add_tokens([token])
        expected = "a special one: not normalized, not single_word, no white space at its ends"
        self.assert_refused(
            tokenizer,
            f"cannot be exported with the added token {token.content!r}, in FOLDER, expected {expected}, got {got}",
        )

    def test_another_pre_tokenizer(self, tokenizer):
        tokenizer.fast.pre_tokenizer = pre_tokenizers.Whitespace()
        self.assert_refused(
            tokenizer,
            "cannot be exported with this pre-tokenizer, in FOLDER, expected BertPreTokenizer, got Whitespace",
        )

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [("max_input_chars_per_word", 50, 100), ("continuing_subword_prefix", "@@", "##")],
    )
    def test_another_wordpiece_model(self, tokenizer, name, value, expected):
        setattr(tokenizer.fast.model, name, value)
        self.assert_refused(
            tokenizer, f"cannot be exported with this {name}, in FOLDER, expected {expected}, got {value}"
        )

    def test_tokens_that_tensorflow_cannot_read(self, tmp_path):
        write_tokens(tmp_path, [*VOCABULARY, "a\x11"])
        self.assert_refused(
            Tokenizer(tmp_path),
            "cannot be exported with this vocabulary, in FOLDER, expected no token with U+0000, U+0011 or one of "
            "Unicode's noncharacters, got 'a\\x11'",
        )
