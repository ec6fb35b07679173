"""What config.json may say."""

import json

import pytest

from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.errors import InputError


def read(**config):
    return BertArchitecture.from_dict({"model_type": "bert", **config})


def test_unknown_keys_go_back_as_they_came():
    assert read(custom={"a": [1]}).to_dict()["custom"] == {"a": [1]}


def test_labels_are_ordered_by_number_not_by_text():
    labels = {str(index): f"name{index}" for index in range(12)}
    architecture = read(id2label=labels)
    assert architecture.id2label[10:] == ("name10", "name11")
    assert architecture.to_dict()["label2id"]["name11"] == 11


def test_num_labels_alone_names_them():
    assert read(num_labels=3).id2label == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "roberta"}, "not a BERT checkpoint, in config.json, expected model_type bert, got .*roberta"),
        ({"position_embedding_type": "relative_key"}, "absolute positions"),
        ({"is_decoder": True}, "only encoder BERTs"),
        ({"hidden_act": "mish"}, "unknown `hidden_act`, expected gelu or .*, got mish"),
        ({"hidden_size": 10, "num_attention_heads": 3}, "a multiple of num_attention_heads=3, got hidden_size=10"),
    ],
)
def test_what_is_not_built_here_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        read(**config)


def test_a_folder_without_config(tmp_path):
    with pytest.raises(InputError, match="checkpoint has no config.json, in .*, expected a folder in the Hugging Face"):
        BertArchitecture.from_folder(tmp_path)


def test_a_config_that_is_not_json(tmp_path):
    (tmp_path / "config.json").write_text("{,}")
    with pytest.raises(InputError, match="unreadable config.json, in .*config.json, expected JSON, got"):
        BertArchitecture.from_folder(tmp_path)


def test_a_folder_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 24}))
    assert BertArchitecture.from_folder(tmp_path).hidden_size == 24


@pytest.mark.parametrize(
    "labels", [{"1" * 5000: "a"}, {"x": "a"}, {"0": []}, ["a", "b"], {str(number): "a" * 10**5 for number in range(9)}]
)
def test_labels_that_are_no_names_by_number(labels):
    if len(labels) == 9:
        labels["x"] = "a"
    with pytest.raises(
        InputError, match="wrong value for id2label, in config.json, expected names by number"
    ) as caught:
        read(id2label=labels)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("num_labels", [0, -1, 2.5, "3", 10**9, True])
def test_a_number_of_labels_that_is_none(num_labels):
    with pytest.raises(
        InputError, match="wrong value for num_labels, in config.json, expected a whole number from 1 to"
    ):
        read(num_labels=num_labels)
