"""The speed of a matrix product."""

import time

import keras
import pytest

from tf_finetune import matrix_rate


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_matrix_rate_is_that_of_the_device_and_takes_no_time(dtype):
    matrix_rate.measured(dtype, hidden_size=8, intermediate_size=32)
    began = time.perf_counter()
    rate = matrix_rate.measured(dtype, hidden_size=64, intermediate_size=256)
    assert time.perf_counter() - began < 1.0
    assert 1e6 < rate < 1e16


def test_the_matrix_rate_leaves_the_random_numbers_as_they_are():
    drawn = []
    for measure in (False, True):
        keras.utils.set_random_seed(0)
        if measure:
            matrix_rate.measured("float32", hidden_size=8, intermediate_size=32)
        drawn.append(float(keras.random.normal(())))
    assert drawn[0] == drawn[1]
