"""The files a BERT tokenizer is saved in, read and checked here so that `transformers` has nothing left to guess.

Either layout: tokenizer.json, or vocab.txt, each with or without tokenizer_config.json, and, from older versions of
transformers, special_tokens_map.json and added_tokens.json. Google's releases have vocab.txt alone.
"""

import json
from pathlib import Path
from typing import Any

from tf_finetune import json_files
from tf_finetune.errors import InputError

FILES = ("tokenizer.json", "vocab.txt")

# The class tokenizer_config.json names. BERT's takes the switches from there, the generic one from tokenizer.json.
BERT = (None, "BertTokenizer", "BertTokenizerFast")
GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")

# Their names in tokenizer_config.json and in tokenizer.json.
SWITCHES = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def load(folder: Path):
    """The `transformers` tokenizer of a folder, whose `backend_tokenizer` is BERT's WordPiece.

    Lower-casing, accents and Chinese characters are as tokenizer_config.json says. What it leaves open tokenizer.json
    decides, which transformers overrules with its defaults; beside vocab.txt the vocabulary decides on lower-casing.

    Raises:
        InputError: no tokenizer there, another kind, a broken file, or one whose tokens would change their ids.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError("checkpoint has no tokenizer", where=folder, expected=" or ".join(FILES))
    settings = _read_object(folder / "tokenizer_config.json")
    class_name = settings.get("tokenizer_class") or _read_object(folder / "config.json").get("tokenizer_class")
    if path.name == "tokenizer.json":
        saved = _bert_parts(_read_tokenizer_json(path), where=path)
        ids = saved["model"]["vocab"] | {token["content"]: token["id"] for token in saved["added_tokens"]}
        switches, options = saved["normalizer"], {}
    else:
        ids = _read_vocabulary(path)
        switches = {"lowercase": not is_cased(ids), "strip_accents": None, "handle_chinese_chars": True}
        options = {"vocab": ids}
        class_name = None if class_name in GENERIC else class_name
    if class_name not in GENERIC:
        options |= {name: settings.get(name, switches[name_there]) for name, name_there in SWITCHES.items()}
        _check_switches(options, where=folder / "tokenizer_config.json")
    ids = ids | _added_ids(folder, settings)
    tokenizer = _from_pretrained(folder, class_name, options, where=path)
    _check_ids(tokenizer, ids, where=path)
    return tokenizer


def is_cased(vocabulary: dict[str, int]) -> bool:
    """Whether more than one in a hundred of the words that could have a capital letter has one.

    Not just any token: Google's uncased Chinese vocabulary holds <S> and <T>, and users put in placeholders of theirs.
    """
    words = [word for token in vocabulary if (word := token.removeprefix("##")).isalpha()]
    words = [word for word in words if word.lower() != word.upper()]
    return sum(word != word.lower() for word in words) > len(words) / 100


def _bert_parts(fast, *, where: Path) -> dict[str, Any]:
    """What tokenizer.json holds of a `tokenizers.Tokenizer`.

    Raises:
        InputError: it is another kind than BERT's.
    """
    saved = json.loads(fast.to_str())
    kinds = [(saved[part] or {}).get("type", f"no {part}") for part in ("model", "normalizer")]
    if kinds != ["WordPiece", "BertNormalizer"]:
        expected, got = "WordPiece with a BertNormalizer", " with ".join(kinds)
        raise InputError("not a BERT tokenizer", where=where, expected=expected, got=got)
    return saved


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Token -> its line, counted from 0. Of a token that stands twice the later line counts; empty lines are skipped.

    Raises:
        InputError: it cannot be read, or has no token.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        got = f"byte {error.object[error.start]:#04x}"
        raise InputError("vocabulary is not UTF-8", where=f"{path} line {line}", got=got) from None
    except OSError as error:
        raise InputError("unreadable vocabulary", where=path, got=error) from None
    vocabulary = {token: index for index, line in enumerate(lines) if (token := line.rstrip())}
    if not vocabulary:
        raise InputError("vocabulary is empty", where=path, expected="one token a line")
    return vocabulary


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no file."""
    return json_files.read_object(path) if path.exists() else {}


def _added_ids(folder: Path, settings: dict[str, Any]) -> dict[str, int]:
    """Token -> id of the tokens that transformers 4 kept outside of the vocabulary."""
    ids = _read_object(folder / "added_tokens.json")
    _read_object(folder / "special_tokens_map.json")  # names tokens and gives no ids; broken, it is named here
    try:
        decoder = settings.get("added_tokens_decoder", {}).items()
        return ids | {token["content"]: int(index) for index, token in decoder}
    except (AttributeError, KeyError, TypeError, ValueError):
        expected = 'added_tokens_decoder {"ID": {"content": "TOKEN", ...}, ...}'
        where = folder / "tokenizer_config.json"
        raise InputError("unreadable file", where=where, expected=expected, got="another form") from None


def _read_tokenizer_json(path: Path):
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # `tokenizers` raises Exception itself for a file it cannot read
        raise InputError("unreadable tokenizer", where=path, got=error) from None


def _check_switches(options: dict[str, Any], *, where: Path) -> None:
    for name in SWITCHES:
        allowed = (True, False, None) if name == "strip_accents" else (True, False)
        if not any(options[name] is value for value in allowed):
            expected = ", ".join(json.dumps(value) for value in allowed)
            raise InputError(f"wrong {name}", where=where, expected=expected, got=json.dumps(options[name]))


def _from_pretrained(folder: Path, class_name: str | None, options: dict[str, Any], *, where: Path):
    import transformers

    # AutoTokenizer wants a config.json with a model_type, which Google's releases have not.
    loader = transformers.BertTokenizer if class_name in BERT else transformers.AutoTokenizer
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        tokenizer = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError("unreadable tokenizer", where=where, got=got) from None
    finally:
        transformers.logging.set_verbosity(verbosity)
    if not tokenizer.is_fast:
        got = type(tokenizer).__name__
        raise InputError("not a BERT tokenizer", where=where, expected="BertTokenizer", got=got)
    _bert_parts(tokenizer.backend_tokenizer, where=where)
    return tokenizer


def _check_ids(tokenizer, ids: dict[str, int], *, where: Path) -> None:
    """`transformers` invents special tokens that are missing and renumbers added ones, all without a word."""
    for token in (tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token):
        if token is not None and token not in ids:
            raise InputError(f"no {token} in the vocabulary", where=where)
    loaded = tokenizer.backend_tokenizer.get_vocab()
    for token, index in ids.items():
        if loaded.get(token) != index:
            got = loaded.get(token, "none")
            raise InputError(f"the tokenizer changes the id of {token}", where=where, expected=index, got=got)
