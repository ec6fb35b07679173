"""The Hugging Face tokenizer of a checkpoint, with this project's truncation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_finetune.config import Truncation
from tf_finetune.errors import InputError
from tf_finetune.text.truncation import truncate

FILES = ("tokenizer.json", "vocab.txt")

# Texts encoded at once: enough for all cores, and few whole encodings in memory beside the ids that are kept.
CHUNK = 4096


class Tokenizer:
    """Text -> token ids. Wraps BERT's fast tokenizer of `transformers`, whichever layout it was saved in.

    Attributes:
        fast: the `tokenizers.Tokenizer` inside, truncation and padding off.
        folder: where it was read from.

    Raises:
        InputError: no tokenizer there, or another kind than BERT's WordPiece.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not any((self.folder / name).is_file() for name in FILES):
            raise InputError("checkpoint has no tokenizer", where=folder, expected=" or ".join(FILES))
        self._tokenizer = _load(self.folder)
        self.fast = self._tokenizer.backend_tokenizer
        self._normalizer = self._bert_normalizer()
        # A saved tokenizer may have both baked in (the packaged one pads everything to 128).
        self.fast.no_truncation()
        self.fast.no_padding()

    def encode(self, texts: Sequence[str], *, max_length: int, truncation: Truncation) -> list[list[int]]:
        """Token ids of each text: [CLS] text [SEP], at most max_length of them."""
        ids = []
        for start in range(0, len(texts), CHUNK):
            encoded = self.fast.encode_batch_fast(list(texts[start : start + CHUNK]))
            ids += [truncate(encoding.ids, max_length=max_length, truncation=truncation) for encoding in encoded]
        return ids

    def _bert_normalizer(self) -> dict[str, Any]:
        saved = json.loads(self.fast.to_str())
        model, normalizer = saved["model"]["type"], saved["normalizer"] or {}
        if model != "WordPiece" or normalizer.get("type") != "BertNormalizer":
            raise InputError(
                "not a BERT tokenizer",
                where=self.folder,
                expected="WordPiece with a BertNormalizer",
                got=f"{model} with {normalizer.get('type', 'no normalizer')}",
            )
        return normalizer

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        self._tokenizer.save_pretrained(folder)

    @property
    def vocabulary(self) -> list[str]:
        """The tokens in the order of their ids; an id no token has gets a string that no text can spell."""
        tokens = {index: token for token, index in self.fast.get_vocab().items()}
        return [tokens.get(index, f"no token {index}") for index in range(max(tokens) + 1)]

    def in_graph_options(self) -> dict[str, Any]:
        """What text.in_graph.InGraphTokenizer needs to give the same ids.

        `special_tokens` are those found literally in a text before it is normalised, such as [MASK].
        """
        return {
            "vocabulary": self.vocabulary,
            "lowercase": self._normalizer["lowercase"],
            "strip_accents": self._normalizer["strip_accents"],
            "tokenize_chinese_chars": self._normalizer["handle_chinese_chars"],
            "clean_text": self._normalizer["clean_text"],
            "special_tokens": {t.content: index for index, t in self.fast.get_added_tokens_decoder().items()},
            "unk_token": self._tokenizer.unk_token,
            "cls_token": self._tokenizer.cls_token,
            "sep_token": self._tokenizer.sep_token,
        }


def _load(folder: Path):
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # `tokenizers` raises Exception itself for a file it cannot read
        raise InputError(
            "unreadable tokenizer", where=folder, got=f"{type(error).__name__}: {error}".splitlines()[0]
        ) from None
    finally:
        transformers.logging.set_verbosity(verbosity)
