"""The Hugging Face tokenizer of a checkpoint, with this project's truncation."""

import json
from collections.abc import Sequence
from pathlib import Path

from tf_finetune.config import Truncation
from tf_finetune.errors import InputError

FILES = ("tokenizer.json", "vocab.txt")


class Tokenizer:
    """Text -> token ids. Wraps the fast tokenizer of `transformers`, whichever layout it was saved in.

    Attributes:
        fast: the `tokenizers.Tokenizer` inside, truncation and padding off.
        folder: where it was read from.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not any((self.folder / name).is_file() for name in FILES):
            raise InputError("checkpoint has no tokenizer", where=folder, expected=" or ".join(FILES))
        self._tokenizer = _load(self.folder)
        self.fast = self._tokenizer.backend_tokenizer
        # A saved tokenizer may have both baked in (the packaged one pads everything to 128).
        self.fast.no_truncation()
        self.fast.no_padding()

    def encode(self, texts: Sequence[str], *, max_length: int, truncation: Truncation) -> list[list[int]]:
        """Token ids of each text: [CLS] text [SEP], at most max_length of them."""
        encoded = self.fast.encode_batch_fast(list(texts))
        return [truncate(encoding.ids, max_length=max_length, truncation=truncation) for encoding in encoded]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        self._tokenizer.save_pretrained(folder)

    @property
    def vocabulary(self) -> list[str]:
        """The tokens in the order of their ids."""
        return [token for token, _ in sorted(self.fast.get_vocab().items(), key=lambda item: item[1])]

    def normalizer_options(self) -> dict[str, bool | None]:
        """lowercase, strip_accents, tokenize_chinese_chars and clean_text, as tokenizer.json has them.

        Raises:
            InputError: the tokenizer is not BERT's WordPiece.
        """
        saved = json.loads(self.fast.to_str())
        normalizer = saved["normalizer"] or {}
        if saved["model"]["type"] != "WordPiece" or normalizer.get("type") != "BertNormalizer":
            raise InputError(
                "not a BERT tokenizer",
                where=self.folder,
                expected="WordPiece with a BertNormalizer",
                got=f"{saved['model']['type']} with {normalizer.get('type')}",
            )
        return {
            "lowercase": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            "clean_text": normalizer["clean_text"],
        }

    def special_tokens(self) -> dict[str, int]:
        """The tokens found literally in a text before it is normalised, such as [MASK], with their ids."""
        return {token.content: index for index, token in self.fast.get_added_tokens_decoder().items()}


def truncate(ids: list[int], *, max_length: int, truncation: Truncation) -> list[int]:
    """Shortens [CLS] text [SEP] to max_length ids; the two special ones stay."""
    surplus = len(ids) - max_length
    if surplus <= 0:
        return ids
    kept = max_length - 2
    head = {Truncation.HEAD: kept, Truncation.TAIL: 0, Truncation.HEAD_TAIL: kept // 4}[truncation]
    return ids[: 1 + head] + ids[1 + head + surplus :]


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
