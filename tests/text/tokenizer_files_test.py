import json
import shutil

import pytest
import tokenizers
import transformers
from tokenizer_folders import LAYOUTS, VOCABULARY, write_config, write_tokenizer_json, write_tokens, write_vocabulary
from tokenizers import models, normalizers

from tf_finetune.errors import InputError
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.text.tokenizer_files import is_cased

# Which of them "Café 中国" becomes tells how every switch stands.
WORDS = [*VOCABULARY[:5], "Café", "café", "Cafe", "cafe", "中", "国", "中国", "##国"]
LETTERS = [
    mark + letter
    for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäéñßÉÄ\u0301\u0308中国我爱你"
    for mark in ("", "##")
]
TEXTS = [
    "Café 中国",
    "我爱中国, CAFÉ and café",
    "the中国the",
    "Cafe\u0301 E\u0301 \u00c4A\u0308",
    "Straße MIXED cAsE Ñandú, naïve",
    "A [MASK]Ä[SEP] 中[CLS]",
    "\u200bzero\u00adwidth\ttab",
    "",
]
ALL_SWITCHES = [
    {"lowercase": lowercase, "strip_accents": strip_accents, "tokenize_chinese_chars": chinese}
    for lowercase in (True, False)
    for strip_accents in (None, True, False)
    for chinese in (True, False)
]


def tokens(folder, text="Café 中国"):
    tokenizer = Tokenizer(folder)
    return [tokenizer.vocabulary[index] for index in tokenizer.fast.encode(text).ids[1:-1]]


def ids(folder):
    return [encoding.ids for encoding in Tokenizer(folder).fast.encode_batch(TEXTS)]


def assert_refused(folder, message):
    with pytest.raises(InputError) as caught:
        Tokenizer(folder)
    assert str(caught.value) == message
    assert "\n" not in message


@pytest.mark.parametrize("switches", ALL_SWITCHES, ids=lambda switches: "-".join(map(str, switches.values())))
@pytest.mark.parametrize("layout", list(LAYOUTS))
class TestSwitches:
    def test_each_has_its_effect(self, tmp_path, layout, switches):
        LAYOUTS[layout](tmp_path, vocabulary=WORDS, **switches)
        lowercase, strip_accents, chinese = switches.values()
        word = "café" if lowercase else "Café"
        if strip_accents or (strip_accents is None and lowercase):
            word = word.replace("é", "e")
        assert tokens(tmp_path) == [word, *(["中", "国"] if chinese else ["中国"])]

    def test_like_transformers(self, tmp_path, layout, switches):
        LAYOUTS[layout](tmp_path, vocabulary=WORDS + LETTERS, **switches)
        theirs = transformers.BertTokenizer(
            vocab={token: index for index, token in enumerate(WORDS + LETTERS)},
            do_lower_case=switches["lowercase"],
            strip_accents=switches["strip_accents"],
            tokenize_chinese_chars=switches["tokenize_chinese_chars"],
        )
        assert ids(tmp_path) == theirs(TEXTS)["input_ids"]

    def test_they_survive_the_other_layout(self, tmp_path, layout, switches):
        here, saved, back = (tmp_path / name for name in ("here", "saved", "back"))
        here.mkdir()
        LAYOUTS[layout](here, vocabulary=WORDS + LETTERS, **switches)
        tokenizer = Tokenizer(here)
        tokenizer.save_pretrained(saved)
        back.mkdir()
        shutil.copy(saved / "tokenizer_config.json", back)
        write_tokens(back, tokenizer.vocabulary)
        assert ids(saved) == ids(here)
        assert ids(back) == ids(here)
        for folder in (saved, back):
            theirs = transformers.AutoTokenizer.from_pretrained(folder)
            assert theirs(TEXTS)["input_ids"] == ids(here)


class TestWhatIsNotSaid:
    @pytest.mark.parametrize("config", ["none", "bert_config.json", "config.json", "tokenizer_config.json"])
    @pytest.mark.parametrize("cased", [True, False])
    def test_the_vocabulary_decides_on_case(self, tmp_path, cased, config):
        """transformers cannot read all of these, and lowers where it can."""
        write_tokens(tmp_path, WORDS if cased else [*WORDS[:5], "café", "cafe", "中", "国"])
        if config != "none":
            (tmp_path / config).write_text('{"model_max_length": 512, "hidden_size": 16}')
        (tmp_path / "bert_model.ckpt.index").touch()
        assert tokens(tmp_path) == ["Café" if cased else "cafe", "中", "国"]

    @pytest.mark.parametrize("switches", ALL_SWITCHES, ids=lambda switches: "-".join(map(str, switches.values())))
    @pytest.mark.parametrize("config", ["none", "config.json", "tokenizer_config.json"])
    def test_tokenizer_json_decides(self, tmp_path, switches, config):
        """transformers 5 reads a cased tokenizer.json as uncased beside a config.json or a silent tokenizer_config."""
        write_tokenizer_json(tmp_path, vocabulary=WORDS, **switches)
        stated = tokens(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()
        if config == "config.json":
            (tmp_path / config).write_text('{"model_type": "bert"}')
        elif config == "tokenizer_config.json":
            write_config(tmp_path)
        assert tokens(tmp_path) == stated

    def test_saving_says_it(self, tmp_path):
        write_tokens(tmp_path, WORDS)
        Tokenizer(tmp_path).save_pretrained(tmp_path / "saved")
        settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert (settings["do_lower_case"], settings["tokenizer_class"]) == (False, "BertTokenizer")
        assert "vocab" not in settings

    @pytest.mark.parametrize("layout", list(LAYOUTS))
    def test_tokenizer_config_wins(self, tmp_path, layout):
        LAYOUTS[layout](tmp_path, vocabulary=WORDS, lowercase=True)
        write_config(tmp_path, do_lower_case=False, strip_accents=True, tokenize_chinese_chars=False)
        assert tokens(tmp_path) == ["Cafe", "中国"]

    @pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
    def test_the_generic_class_leaves_it_to_tokenizer_json(self, tmp_path, name):
        write_tokenizer_json(tmp_path, vocabulary=WORDS, lowercase=False)
        write_config(tmp_path, tokenizer_class=name, do_lower_case=True)
        assert tokens(tmp_path) == ["Café", "中", "国"]
        options = Tokenizer(tmp_path).in_graph_options()
        assert [options[f"{token}_token"] for token in ("unk", "cls", "sep")] == ["[UNK]", "[CLS]", "[SEP]"]

    @pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "BertTokenizerFast", "DistilBertTokenizer"])
    def test_other_classes_with_a_vocabulary(self, tmp_path, name):
        write_tokens(tmp_path, WORDS)
        write_config(tmp_path, tokenizer_class=name)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        assert tokens(tmp_path) == ["Café", "中", "国"]

    def test_tokenizer_json_before_vocabulary(self, tmp_path):
        write_tokenizer_json(tmp_path)
        (tmp_path / "vocab.txt").write_text("another\n")
        assert Tokenizer(tmp_path).vocabulary == VOCABULARY

    def test_tokenizer_json_of_old_names_no_model_type(self, tmp_path):
        write_tokenizer_json(tmp_path)
        content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
        del content["model"]["type"]
        (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        assert Tokenizer(tmp_path).vocabulary == VOCABULARY


class TestIsCased:
    LOWER = ["[UNK]", "[unused1]", "##ing", "中", "café", "ß", "1", *(chr(97 + i) * 3 for i in range(26))]

    @pytest.mark.parametrize(
        ("more", "cased"),
        [
            ([], False),
            (["The"], True),
            (["##Ing"], True),
            (["Ä"], True),
            (["Ж"], True),
            (["[CLS]", "[ENTITY]", "<S>", "<T>", "4G"], False),  # <S> and <T> are in Google's uncased Chinese one
        ],
    )
    def test_few_words(self, more, cased):
        assert is_cased(dict.fromkeys(self.LOWER + more, 0)) is cased

    def test_a_placeholder_among_many_words(self):
        words = [chr(97 + i) + chr(97 + j) for i in range(26) for j in range(26)]
        assert not is_cased(dict.fromkeys([*words, "URL", "USER"], 0))

    def test_ideographs_do_not_outnumber_the_letters(self):
        ideographs = [chr(0x4E00 + i) for i in range(8000)]
        assert is_cased(dict.fromkeys([*ideographs, "a", "A"], 0))

    def test_no_words(self):
        assert not is_cased({"[UNK]": 0, "!": 1, "中": 2})


class TestAddedTokens:
    """What transformers 4 wrote beside vocab.txt."""

    def test_special_tokens_of_another_name(self, tmp_path):
        write_tokens(tmp_path, ["<pad>", "<unk>", "<s>", "</s>", "the"])
        names = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": {"content": "</s>"}, "pad_token": "<pad>"}
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
        tokenizer = Tokenizer(tmp_path)
        assert tokenizer.fast.encode("the film").ids == [2, 4, 1, 3]
        options = tokenizer.in_graph_options()
        assert [options[f"{token}_token"] for token in ("unk", "cls", "sep")] == ["<unk>", "<s>", "</s>"]

    def test_added_tokens_keep_their_ids(self, tmp_path):
        write_tokens(tmp_path)
        count = len(VOCABULARY)
        (tmp_path / "special_tokens_map.json").write_text('{"additional_special_tokens": ["[E1]", "[E2]"]}')
        added = {"[E2]": count, "[E1]": count + 1, "covfefe": count + 2}
        (tmp_path / "added_tokens.json").write_text(json.dumps(added))
        tokenizer = Tokenizer(tmp_path)
        assert tokenizer.fast.encode("the [E1] covfefe [E2]").ids[1:-1] == [5, count + 1, count + 2, count]
        tokenizer.save_pretrained(tmp_path / "saved")
        assert Tokenizer(tmp_path / "saved").vocabulary == [*VOCABULARY, "[E2]", "[E1]", "covfefe"]

    def test_added_tokens_decoder(self, tmp_path):
        write_tokens(tmp_path)
        token = {"content": "[N]", "special": True, "normalized": False, "lstrip": False, "rstrip": False}
        write_config(tmp_path, added_tokens_decoder={str(len(VOCABULARY)): token})
        assert Tokenizer(tmp_path).vocabulary == [*VOCABULARY, "[N]"]

    def test_an_id_that_would_change(self, tmp_path):
        write_tokens(tmp_path)
        (tmp_path / "added_tokens.json").write_text('{"[N]": 99}')
        where = tmp_path / "vocab.txt"
        assert_refused(tmp_path, f"the tokenizer changes the id of [N], in {where}, expected 99, got 16")

    def test_a_token_that_would_be_lost(self, tmp_path):
        """transformers forgets tokenizer.json's added tokens where tokenizer_config.json lists some."""
        write_tokenizer_json(tmp_path)
        path = tmp_path / "tokenizer.json"
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.add_tokens(["covfefe"])
        tokenizer.save(str(path))
        assert Tokenizer(tmp_path).vocabulary[-1] == "covfefe"
        write_config(tmp_path, added_tokens_decoder={})
        assert_refused(tmp_path, f"the tokenizer changes the id of covfefe, in {path}, expected 16, got none")

    @pytest.mark.parametrize("decoder", [["[N]"], {"x": {"content": "[N]"}}, {"16": "[N]"}, {"16": {}}, None])
    def test_malformed_added_tokens_decoder(self, tmp_path, decoder):
        write_tokens(tmp_path)
        write_config(tmp_path, added_tokens_decoder=decoder)
        expected = 'expected added_tokens_decoder {"ID": {"content": "TOKEN", ...}, ...}, got another form'
        assert_refused(tmp_path, f"unreadable file, in {tmp_path / 'tokenizer_config.json'}, {expected}")


class TestBrokenVocabulary:
    def refused(self, folder, content, message):
        (folder / "vocab.txt").write_bytes(content)
        assert_refused(folder, message.format(path=folder / "vocab.txt"))

    @pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
    def test_empty(self, tmp_path, content):
        self.refused(tmp_path, content, "vocabulary is empty, in {path}, expected one token a line")

    def test_not_utf_8(self, tmp_path):
        content = "\n".join(VOCABULARY).encode("latin-1", "replace")
        self.refused(tmp_path, content, "vocabulary is not UTF-8, in {path} line 12, got byte 0xe9")

    def test_utf_16(self, tmp_path):
        content = "\n".join(VOCABULARY).encode("utf-16")
        self.refused(tmp_path, content, "vocabulary is not UTF-8, in {path} line 1, got byte 0xff")

    @pytest.mark.parametrize("token", ["[UNK]", "[CLS]", "[SEP]"])
    def test_special_token_missing(self, tmp_path, token):
        """transformers would give it the first free id, which the model has no embedding for."""
        content = "\n".join(word for word in VOCABULARY if word != token).encode()
        self.refused(tmp_path, content, f"no {token} in the vocabulary, in {{path}}")

    def test_weights_under_the_name_of_a_vocabulary(self, tmp_path):
        self.refused(tmp_path, b"\x00\x01" * 50, "no [UNK] in the vocabulary, in {path}")

    @pytest.mark.parametrize(
        "content",
        [
            "\r\n".join(VOCABULARY) + "\r\n",
            "\n".join(VOCABULARY),
            "\n".join(VOCABULARY) + "\n\n\n",
            "\ufeff" + "\n".join(VOCABULARY),
            " \n".join(VOCABULARY),
        ],
        ids=["CRLF", "no last line end", "blank lines at the end", "byte order mark", "spaces"],
    )
    def test_what_can_be_read(self, tmp_path, content):
        (tmp_path / "vocab.txt").write_bytes(content.encode())
        assert Tokenizer(tmp_path).vocabulary == VOCABULARY

    def test_a_blank_line_keeps_its_id(self, tmp_path):
        write_tokens(tmp_path, [*VOCABULARY[:6], "", "\u2028", *VOCABULARY[6:]])
        assert Tokenizer(tmp_path).vocabulary == [*VOCABULARY[:6], "no token 6", "no token 7", *VOCABULARY[6:]]

    def test_of_duplicates_the_later_counts(self, tmp_path):
        write_tokens(tmp_path, [*VOCABULARY, "play"])
        assert Tokenizer(tmp_path).fast.token_to_id("play") == len(VOCABULARY)
        assert transformers.BertTokenizer.from_pretrained(tmp_path).convert_tokens_to_ids("play") == len(VOCABULARY)


class TestBrokenTokenizerJson:
    def test_truncated(self, tmp_path):
        write_tokenizer_json(tmp_path)
        path = tmp_path / "tokenizer.json"
        path.write_bytes(path.read_bytes()[:900])
        expected = f"unreadable tokenizer, in {path}, got EOF while parsing .* at line .*"
        with pytest.raises(InputError, match=expected):
            Tokenizer(tmp_path)

    @pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b"", b'{"added_tokens": []}', b"\xff\xfe", b"not JSON"])
    def test_unreadable(self, tmp_path, content):
        write_tokenizer_json(tmp_path)
        path = tmp_path / "tokenizer.json"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"unreadable tokenizer, in {path}, got ."):
            Tokenizer(tmp_path)

    @pytest.mark.parametrize(
        ("model", "kind"),
        [
            (models.BPE({"a": 0, "b": 1}, []), "BPE"),
            (models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]"), "WordLevel"),
            (models.Unigram([("a", 0.0), ("[UNK]", -1.0)], 1), "Unigram"),
        ],
        ids=["BPE", "WordLevel", "Unigram"],
    )
    @pytest.mark.parametrize("with_config", [True, False])
    def test_another_model(self, tmp_path, model, kind, with_config):
        """transformers would make a WordPiece of any of them where the config says BertTokenizer."""
        if with_config:
            write_config(tmp_path)
        path = tmp_path / "tokenizer.json"
        tokenizers.Tokenizer(model).save(str(path))
        expected = f"expected WordPiece with a BertNormalizer, got {kind} with no normalizer"
        assert_refused(tmp_path, f"not a BERT tokenizer, in {path}, {expected}")

    @pytest.mark.parametrize(
        ("normalizer", "got"), [(normalizers.NFC(), "WordPiece with NFC"), (None, "WordPiece with no normalizer")]
    )
    def test_another_normalizer(self, tmp_path, normalizer, got):
        write_tokenizer_json(tmp_path)
        path = tmp_path / "tokenizer.json"
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.normalizer = normalizer
        tokenizer.save(str(path))
        expected = f"expected WordPiece with a BertNormalizer, got {got}"
        assert_refused(tmp_path, f"not a BERT tokenizer, in {path}, {expected}")

    @pytest.mark.parametrize("token", ["[UNK]", "[CLS]", "[SEP]"])
    def test_special_token_missing(self, tmp_path, token):
        write_tokenizer_json(tmp_path)
        path = tmp_path / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["model"]["vocab"][token]
        content["added_tokens"], content["post_processor"] = [], None
        path.write_text(json.dumps(content), encoding="utf-8")
        assert_refused(tmp_path, f"no {token} in the vocabulary, in {path}")

    def test_no_special_tokens_around_the_text(self, tmp_path):
        write_tokenizer_json(tmp_path)
        write_config(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
        path = tmp_path / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8")) | {"post_processor": None}
        path.write_text(json.dumps(content), encoding="utf-8")
        assert_refused(tmp_path, f"not a BERT tokenizer, in {tmp_path}, expected [CLS] text [SEP], got text")


class TestBrokenConfig:
    @pytest.mark.parametrize("layout", list(LAYOUTS))
    @pytest.mark.parametrize(
        "name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"]
    )
    def test_not_json(self, tmp_path, layout, name):
        LAYOUTS[layout](tmp_path)
        write_config(tmp_path, tokenizer_class=None)
        (tmp_path / name).write_text('{"do_lower_case": tru')
        got = "Expecting value: line 1 column 19 (char 18)"
        assert_refused(tmp_path, f"unreadable {name}, in {tmp_path / name}, expected JSON, got {got}")

    def test_not_utf_8(self, tmp_path):
        write_vocabulary(tmp_path)
        (tmp_path / "tokenizer_config.json").write_bytes(b'{"a": "\xe9"}')
        with pytest.raises(InputError, match="unreadable tokenizer_config.json, in .*, expected JSON, got 'utf-8'"):
            Tokenizer(tmp_path)

    @pytest.mark.parametrize(("content", "got"), [("[]", "list"), ("null", "NoneType"), ("7", "int")])
    def test_no_object(self, tmp_path, content, got):
        write_vocabulary(tmp_path)
        path = tmp_path / "tokenizer_config.json"
        path.write_text(content)
        assert_refused(tmp_path, f"unreadable {path.name}, in {path}, expected a JSON object, got {got}")

    @pytest.mark.parametrize("layout", list(LAYOUTS))
    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("do_lower_case", "false", "true, false"),
            ("do_lower_case", None, "true, false"),
            ("strip_accents", 1, "true, false, null"),
            ("tokenize_chinese_chars", 0, "true, false"),
        ],
    )
    def test_wrong_switch(self, tmp_path, layout, name, value, expected):
        LAYOUTS[layout](tmp_path)
        write_config(tmp_path, **{name: value})
        where = tmp_path / "tokenizer_config.json"
        assert_refused(tmp_path, f"wrong {name}, in {where}, expected {expected}, got {json.dumps(value)}")

    @pytest.mark.parametrize("stated_in", ["tokenizer_config.json", "config.json"])
    def test_another_class(self, tmp_path, stated_in):
        """Japanese BERT splits words by a dictionary first; its vocab.txt looks like any other."""
        write_tokens(tmp_path)
        (tmp_path / stated_in).write_text('{"tokenizer_class": "BertJapaneseTokenizer", "model_type": "bert"}')
        expected = "expected BertTokenizer, got BertJapaneseTokenizer"
        assert_refused(tmp_path, f"not a BERT tokenizer, in {tmp_path / 'vocab.txt'}, {expected}")

    def test_a_class_with_a_vocabulary_of_its_own(self, tmp_path):
        write_tokens(tmp_path)
        write_config(tmp_path, tokenizer_class="RobertaTokenizer")
        expected = "expected WordPiece with a BertNormalizer, got BPE with no normalizer"
        assert_refused(tmp_path, f"not a BERT tokenizer, in {tmp_path / 'vocab.txt'}, {expected}")
