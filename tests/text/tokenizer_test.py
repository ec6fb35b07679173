import json

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from tf_finetune.config import Truncation
from tf_finetune.errors import InputError
from tf_finetune.text import tokenizer as tokenizer_module
from tf_finetune.text.tokenizer import Tokenizer

VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    "the", "The", "play", "##ing", "##ed", "cafe", "Café", "un", "中", "!", ",",
]  # fmt: skip
CLS, SEP, THE = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]"), VOCABULARY.index("the")
TEXTS = ["The playing!", "", "Café, unplayed 中the", "the [MASK] the", "the " * 40, "nowhere"]


def write_tokenizer_json(folder, *, lowercase=True):
    """As `tokenizers` saves it, with truncation and padding baked in as the packaged checkpoint has them."""
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    tokenizer.add_special_tokens(VOCABULARY[:5])
    tokenizer.enable_truncation(max_length=16)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_vocabulary(folder, *, lowercase=True):
    """As Google's original releases have it."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


LAYOUTS = {"tokenizer_json": write_tokenizer_json, "vocabulary": write_vocabulary}


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

    def test_vocabulary_beside_config_json_only(self, tmp_path):
        """Google's first releases carry no tokenizer_config.json; they are read as uncased, as Hugging Face does."""
        write_vocabulary(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        assert encode(Tokenizer(tmp_path), ["The"]) == [[CLS, THE, SEP]]

    @pytest.mark.parametrize("content", ["{", "{}", "[]", "", '{"added_tokens": []}'])
    def test_unreadable_tokenizer_json(self, tmp_path, content):
        write_tokenizer_json(tmp_path)
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(InputError, match="unreadable tokenizer, in .*, got "):
            Tokenizer(tmp_path)

    def test_verbosity_of_transformers_is_left_as_it_was(self, folder):
        import transformers

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

    @pytest.mark.parametrize(
        ("normalizer", "got"), [(normalizers.NFC(), "WordPiece with NFC"), (None, "WordPiece with no normalizer")]
    )
    def test_normalizer_of_another_kind(self, tmp_path, monkeypatch, normalizer, got):
        write_tokenizer_json(tmp_path)
        loaded = tokenizer_module._load(tmp_path)
        loaded.backend_tokenizer.normalizer = normalizer
        monkeypatch.setattr(tokenizer_module, "_load", lambda folder: loaded)
        expected = f"not a BERT tokenizer, in .*, expected WordPiece with a BertNormalizer, got {got}"
        with pytest.raises(InputError, match=expected):
            Tokenizer(tmp_path)
