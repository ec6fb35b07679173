"""What a process runs on."""

import json
import os
import platform

import keras

from tf_finetune import surroundings


def test_the_description_names_versions_and_precision():
    described = surroundings.in_words("float32")
    assert keras.__version__ in described
    assert "float32" in described
    assert "(tensorflow)" in described


def test_the_surroundings_are_this_machine_and_these_versions(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    found = surroundings.found("mixed_bfloat16")
    assert found["keras"] == keras.__version__
    assert found["python"] == platform.python_version()
    assert found["cores"] == found["threads"] == len(os.sched_getaffinity(0))
    assert found["gpus"] == "none"
    assert found["precision"] == "mixed_bfloat16"
    assert found["processor"]
    assert json.loads(json.dumps(found)) == found
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert surroundings.found("float32")["threads"] == 3
