import json

import pytest
import transformers
from tokenizer_folders import LAYOUTS, VOCABULARY, write_tokens, write_vocabulary

from tf_finetune.config import Truncation
from tf_finetune.errors import InputError
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


class TestEncode:
    def test_by_hand(self, tokenizer):
        tokens = [VOCABULARY[index] for index in encode(tokenizer, ["The playing, CAFÉ!"])[0]]
        assert tokens == ["[CLS]", "the", "play", "##ing", ",", "cafe", "!", "[SEP]"]

    def test_special_token_in_the_text(self, tokenizer):
        assert encode(tokenizer, ["the [MASK]"]) == [[CLS, THE, VOCABULARY.index("[MASK]"), SEP]]

    def test_unknown_word(self, tokenizer):
        assert encode(tokenizer, ["nowhere"]) == [[CLS, VOCABULARY.index("[UNK]"), SEP]]

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

    @pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])
    def test_both_layouts_give_the_same_ids(self, tmp_path, lowercase):
        ids = {}
        for name, write in LAYOUTS.items():
            (tmp_path / name).mkdir()
            write(tmp_path / name, lowercase=lowercase)
            ids[name] = encode(Tokenizer(tmp_path / name), TEXTS)
        assert ids["tokenizer_json"] == ids["vocabulary"]


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
