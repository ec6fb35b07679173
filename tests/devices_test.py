"""What was asked for, and what it resolves to."""

import os
import sys

import pytest
import tensorflow as tf

from tf_finetune import devices, tf_strategies
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


def test_mirrored_on_one_device_has_one_replica():
    chosen = devices.choose(strategy=Strategy.MIRRORED)
    assert (chosen.names, chosen.why["strategy"]) == (
        ("CPU:0",), "as runtime.strategy says, with one replica: there is one device"
    )  # fmt: skip
    with chosen.scope():
        assert tf.distribute.get_strategy().num_replicas_in_sync == devices.replicas_at_work() == 1
    assert not tf.distribute.has_strategy()


def test_several_gpus_share_each_batch_by_themselves(monkeypatch):
    monkeypatch.setattr(devices, "gpus", lambda: ["one", "another"])
    monkeypatch.setattr(devices, "device_name", lambda gpu: gpu)
    monkeypatch.setattr(tf_strategies, "for_mirrored", lambda: ("GPU:0", "GPU:1"))
    chosen = devices.choose(precision=Precision.FLOAT32)
    assert (chosen.kind, chosen.strategy, chosen.replicas) == ("GPU", Strategy.MIRRORED, 2)
    assert (chosen.why["devices"], chosen.why["strategy"]) == ("one, another", "there are 2 GPUs")


def test_a_tpu_that_is_not_there(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    expected = r"no TPU to train on, in runtime.strategy=tpu, expected a Cloud TPU VM .* in TPU_NAME, got \w+"
    with pytest.raises(InputError, match=expected):
        devices.choose(strategy=Strategy.TPU)


def test_a_tpu_is_trained_on_where_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(devices, "_sees_tpu", lambda: True)
    assert devices.choose(precision=Precision.FLOAT32).kind == "CPU"
    advised = "--config.runtime.strategy=tpu --config.train.num_shapes=4"
    assert capsys.readouterr().err == f"warning: there is a TPU, which {advised} trains on\n"
    monkeypatch.setattr(tf_strategies, "for_tpu", lambda: ("TPU:0", "TPU:1"))
    chosen = devices.choose(strategy=Strategy.TPU)
    assert (chosen.kind, chosen.replicas, chosen.policy) == ("TPU", 2, "mixed_bfloat16")
    assert chosen.why["precision"] == "the TPU multiplies bfloat16 natively"
    assert capsys.readouterr().err == ""


def test_jax_on_gpus_is_told_of_deterministic_operations_before_it_begins(monkeypatch):
    monkeypatch.setattr(devices, "keras_backend", lambda: "jax")
    monkeypatch.setattr(devices, "_jax_has_begun", lambda: True)
    monkeypatch.setattr(devices, "kind", lambda: "GPU")
    monkeypatch.setenv("XLA_FLAGS", "--one")
    with pytest.raises(InputError) as caught:
        devices.use_deterministic_operations()
    assert str(caught.value) == (
        "too late for other operations, in runtime.deterministic, expected XLA_FLAGS=--xla_gpu_deterministic_ops=true "
        "in the environment before JAX begins, got a process in which JAX has begun"
    )
    assert not devices.is_deterministic()
    monkeypatch.setattr(devices, "_jax_has_begun", lambda: False)
    for _ in range(2):
        devices.use_deterministic_operations()
        assert os.environ["XLA_FLAGS"] == "--one --xla_gpu_deterministic_ops=true"
    assert devices.is_deterministic()


def test_the_whole_float32_of_jax_ends_with_the_block(monkeypatch):
    import jax

    monkeypatch.setattr(devices, "keras_backend", lambda: "jax")
    before = jax.config.jax_default_matmul_precision
    with devices.whole_float32():
        assert jax.config.jax_default_matmul_precision == "highest"
    assert jax.config.jax_default_matmul_precision == before != "highest"
