"""What was asked for, and what it resolves to."""

import json
import os
import platform
import sys
import time

import keras
import pytest

from tf_finetune import devices
from tf_finetune.config import Backend, Precision, Strategy
from tf_finetune.errors import InputError


@pytest.mark.parametrize(("native", "policy"), [(True, "mixed_bfloat16"), (False, "float32")])
def test_auto_follows_the_processor(native, policy, monkeypatch):
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda: native)
    assert devices.training_policy(Precision.AUTO) == policy


def test_an_explicit_precision_does_not_ask_the_processor(monkeypatch):
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda: pytest.fail("asked"))
    assert devices.training_policy(Precision.FLOAT32) == "float32"
    assert devices.training_policy(Precision.BFLOAT16) == "mixed_bfloat16"


def test_the_description_names_versions_and_precision():
    described = devices.describe("float32")
    assert keras.__version__ in described
    assert "float32" in described
    assert "(tensorflow)" in described


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_matrix_rate_is_that_of_the_device_and_takes_no_time(dtype):
    devices.matrix_rate(dtype, hidden_size=8, intermediate_size=32)
    began = time.perf_counter()
    rate = devices.matrix_rate(dtype, hidden_size=64, intermediate_size=256)
    assert time.perf_counter() - began < 1.0
    assert 1e6 < rate < 1e16


def test_the_matrix_rate_leaves_the_random_numbers_as_they_are():
    drawn = []
    for measure in (False, True):
        keras.utils.set_random_seed(0)
        if measure:
            devices.matrix_rate("float32", hidden_size=8, intermediate_size=32)
        drawn.append(float(keras.random.normal(())))
    assert drawn[0] == drawn[1]


def test_the_surroundings_are_this_machine_and_these_versions(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    found = devices.surroundings("mixed_bfloat16")
    assert found["keras"] == keras.__version__
    assert found["python"] == platform.python_version()
    assert found["cores"] == found["threads"] == len(os.sched_getaffinity(0))
    assert found["gpus"] == "none"
    assert found["precision"] == "mixed_bfloat16"
    assert found["processor"]
    assert json.loads(json.dumps(found)) == found
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert devices.surroundings("float32")["threads"] == 3


def test_jax_that_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"JAX is not installed, .*expected pip install 'tf_finetune\[jax\]'"):
        devices.check_backend()


def test_the_choice_comes_with_its_reasons():
    chosen = devices.choose(backend=Backend.TENSORFLOW, strategy=Strategy.ONE_DEVICE, precision=Precision.FLOAT32)
    assert (chosen.backend, chosen.kind, chosen.replicas, chosen.policy) == ("tensorflow", "CPU", 1, "float32")
    assert chosen.why == {
        "devices": "TensorFlow sees no GPU",
        "backend": "as runtime.backend says",
        "precision": "as runtime.precision says",
        "strategy": "as runtime.strategy says",
    }
    with pytest.raises(InputError, match="no such strategy, in runtime.strategy, expected .* got data_parallel"):
        devices.choose(strategy=Strategy.DATA_PARALLEL)
