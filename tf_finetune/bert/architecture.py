"""What a BERT checkpoint's config.json says, unknown keys kept for the way back."""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_finetune import json_files
from tf_finetune.errors import InputError

ACTIVATIONS = ("gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")
REGRESSION, SINGLE_LABEL, MULTI_LABEL = "regression", "single_label_classification", "multi_label_classification"
# Far more than any data set has; a config.json may ask for a billion.
MOST_LABELS = 1_000_000
PROBLEM_TYPES = (REGRESSION, SINGLE_LABEL, MULTI_LABEL)

# Values that would make another model of it, and what they are in the one that is built here.
BUILT = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertArchitecture:
    """Sizes and rates of one BERT model; the names are config.json's own.

    Attributes:
        problem_type: one of PROBLEM_TYPES; None leaves it to the number of labels, as PyTorch does.
        pad_token_id: the token whose embedding gets no gradient, as in PyTorch; None means there is none.
        id2label: label name of each logit, in order; its length is the number of labels.
        extra: every key of config.json that the model does not read, written back by `to_dict`.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    problem_type: str | None = None
    id2label: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                "`hidden_size` does not divide into attention heads",
                expected=f"a multiple of num_attention_heads={self.num_attention_heads}",
                got=f"hidden_size={self.hidden_size}",
            )
        if self.hidden_act not in ACTIVATIONS:
            raise InputError("unknown `hidden_act`", expected=" or ".join(ACTIVATIONS), got=self.hidden_act)
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise InputError("unknown `problem_type`", expected=" or ".join(PROBLEM_TYPES), got=self.problem_type)
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise InputError(
                "`pad_token_id` is no token of the vocabulary",
                expected=f"below {self.vocab_size}",
                got=self.pad_token_id,
            )
        if len(self.id2label) < 1:
            raise InputError("a classifier needs labels", expected="num_labels >= 1", got="num_labels=0")

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def resolved_problem_type(self) -> str:
        """One of PROBLEM_TYPES; where there is none, one label is a number and several are classes, as in PyTorch."""
        return self.problem_type or (REGRESSION if self.num_labels == 1 else SINGLE_LABEL)

    @property
    def head_dropout(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, where: object = "config.json") -> "BertArchitecture":
        """Reads the content of a config.json.

        Raises:
            InputError: the config is not an encoder BERT with absolute positions, or a value does not fit.
        """
        if not isinstance(config, Mapping):
            raise InputError("not a config.json", where=where, expected="an object", got=type(config).__name__)
        config = dict(config)
        if "hidden_size" in config:  # a BERT from before there was another type
            config.setdefault("model_type", "bert")
        if config.get("model_type") != "bert":
            raise InputError(
                "not a BERT checkpoint",
                where=where,
                expected="model_type bert",
                got=f"model_type {_brief(config.get('model_type'))}",
            )
        for key, value in BUILT.items():
            if config.get(key, value) not in (value, None):
                raise InputError(
                    "only encoder BERTs with absolute positions are built here",
                    where=where,
                    expected=f"{key}={value}",
                    got=f"{key}={_brief(config[key])}",
                )
        del config["model_type"]
        labels = config.pop("id2label", None)
        num_labels = config.pop("num_labels", None)  # older files carry it; id2label says the same
        config.pop("label2id", None)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in ("extra", "id2label")}
        known = {key: value for key, value in config.items() if key in fields}
        extra = {key: value for key, value in config.items() if key not in fields}
        for key, value in known.items():
            _check_value(fields[key], value, where)
        if labels:
            known["id2label"] = _labels(labels, where)
        elif num_labels is not None:
            if type(num_labels) is not int or not 0 < num_labels <= MOST_LABELS:
                expected = f"a whole number from 1 to {MOST_LABELS}"
                raise InputError("wrong value for num_labels", where=where, expected=expected, got=_brief(num_labels))
            known["id2label"] = default_labels(num_labels)
        return cls(**known, extra=extra)

    @classmethod
    def from_folder(cls, folder: Path) -> "BertArchitecture":
        """Reads a checkpoint's config.json, or the bert_config.json of Google's original releases."""
        path = Path(folder) / "config.json"
        google = path.with_name("bert_config.json")
        if path.is_file():
            return cls.from_dict(json_files.read_object(path), where=path)
        if google.is_file():  # written before there was more than one model_type
            return cls.from_dict({"model_type": "bert", **json_files.read_object(google)}, where=google)
        raise InputError("checkpoint has no config.json", where=folder, expected="a folder in the Hugging Face layout")

    def replaced(self, overrides: Mapping[str, Any], *, id2label: tuple[str, ...]) -> "BertArchitecture":
        """The same with other labels and with values that replace config.json's.

        Raises:
            InputError: a key that the model does not read, or a value that does not fit.
        """
        known = {field.name: field for field in dataclasses.fields(self) if field.name not in ("extra", "id2label")}
        for key, value in overrides.items():
            if key not in known:
                near = difflib.get_close_matches(key, (*known, "num_labels", "id2label"), n=1)
                expected = (
                    f"one like {near[0]}" if near else f"an argument that is documented, or one of {', '.join(known)}"
                )
                raise InputError("unknown argument or config override", expected=expected, got=key)
            _check_value(known[key], value, "the overrides")
        return dataclasses.replace(self, id2label=id2label, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json: what was read, the unknown keys included, and the labels."""
        known = dataclasses.asdict(self)
        labels = known.pop("id2label")
        return {
            **known.pop("extra"),
            **known,
            "id2label": {str(index): name for index, name in enumerate(labels)},
            "label2id": {name: index for index, name in enumerate(labels)},
        }


def _check_value(field: dataclasses.Field, value: Any, where: object) -> None:
    """Refuses a value of the wrong type or range: sizes are whole and positive, dropouts from 0 to 1."""
    if value is None and "None" in str(field.type):
        return
    if field.name == "pad_token_id":
        right, expected = type(value) is int and value >= 0, "a token's id"
    elif field.name == "initializer_range":
        right, expected = type(value) in (int, float) and 0 <= value < math.inf, "a number from 0"
    elif field.type is int:
        right, expected = type(value) is int and value > 0, "a whole number above 0"
    elif field.type in (str, str | None):
        right, expected = isinstance(value, str), "a name"
    else:
        right, expected = type(value) in (int, float) and 0 <= value < 1, "a number from 0 to 1"
    if not right:
        raise InputError(f"wrong value for {field.name}", where=where, expected=expected, got=_brief(value))


def _labels(labels: Any, where: object) -> tuple[str, ...]:
    """The names of an id2label in the order of their numbers, which JSON has as text."""
    if isinstance(labels, Mapping) and len(labels) <= MOST_LABELS:
        numbered = all(re.fullmatch(r"[0-9]{1,9}", str(number)) for number in labels)
        if numbered and all(isinstance(name, str | int | float) for name in labels.values()):
            return tuple(name for _, name in sorted(labels.items(), key=lambda item: int(item[0])))
    raise InputError("wrong value for id2label", where=where, expected="names by number", got=_brief(labels))


def _brief(value: Any) -> str:
    """A stranger's value, short enough for a line."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def default_labels(num_labels: int) -> tuple[str, ...]:
    """Names for labels nobody named, as Hugging Face writes them: LABEL_0, LABEL_1 ..."""
    return tuple(f"LABEL_{index}" for index in range(num_labels))


def label_names(
    architecture: BertArchitecture,
    *,
    num_labels: int | None,
    id2label: Mapping[int | str, str] | Sequence[str] | None,
    label2id: Mapping[str, int] | None,
) -> tuple[str, ...]:
    """The labels a user asks for, and the architecture's own where nothing is asked.

    Raises:
        InputError: what is asked for does not agree, or names do not number the logits from 0.
    """
    if num_labels is not None and (type(num_labels) is not int or num_labels < 1):
        raise InputError("wrong `num_labels`", expected="a whole number above 0", got=repr(num_labels))
    asked = []
    if isinstance(id2label, Mapping):  # keys may be strings, as in config.json
        asked.append({int(index): name for index, name in id2label.items()})
    elif id2label is not None:
        asked.append(dict(enumerate(id2label)))
    if label2id is not None:
        asked.append({index: name for name, index in label2id.items()})
    if not asked:
        return architecture.id2label if num_labels in (None, architecture.num_labels) else default_labels(num_labels)
    names = asked[0]
    if names != asked[-1]:
        raise InputError("`id2label` and `label2id` disagree", expected=str(names), got=str(asked[-1]))
    if len(set(names.values())) < len(names):
        raise InputError("two labels have the same name", expected="a name for each", got=str(names))
    if sorted(names) != list(range(len(names))):
        raise InputError("`id2label` must number its names from 0", got=str(names))
    if num_labels not in (None, len(names)):
        raise InputError("`num_labels` and `id2label` disagree", expected=f"{len(names)} labels", got=num_labels)
    return tuple(names[index] for index in range(len(names)))
