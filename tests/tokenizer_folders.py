"""Tokenizers as they lie on disk: the layouts that checkpoints come in, with a vocabulary of a few words."""

import json

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    "the", "The", "play", "##ing", "##ed", "cafe", "Café", "un", "中", "!", ",",
]  # fmt: skip


def write_tokenizer_json(
    folder, *, vocabulary=VOCABULARY, lowercase=True, strip_accents=None, tokenize_chinese_chars=True
):
    """As `tokenizers` saves it, with truncation and padding baked in as the packaged checkpoint has them."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=tokenize_chinese_chars
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.add_special_tokens(list(vocabulary[:5]))
    tokenizer.enable_truncation(max_length=16)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_config(
        folder, do_lower_case=lowercase, strip_accents=strip_accents, tokenize_chinese_chars=tokenize_chinese_chars
    )


def write_vocabulary(folder, *, vocabulary=VOCABULARY, lowercase=True, strip_accents=None, tokenize_chinese_chars=True):
    """As transformers 4 and older save it."""
    write_tokens(folder, vocabulary)
    write_config(
        folder, do_lower_case=lowercase, strip_accents=strip_accents, tokenize_chinese_chars=tokenize_chinese_chars
    )


def write_tokens(folder, vocabulary=VOCABULARY):
    """vocab.txt alone, as in Google's releases."""
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def write_config(folder, **settings):
    content = json.dumps({"tokenizer_class": "BertTokenizer"} | settings)
    (folder / "tokenizer_config.json").write_text(content, encoding="utf-8")


LAYOUTS = {"tokenizer_json": write_tokenizer_json, "vocabulary": write_vocabulary}
