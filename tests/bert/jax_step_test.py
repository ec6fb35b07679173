"""A step of JAX in pieces on four devices: what they send each other, and what they drop."""

import json
import subprocess
import sys

import jax_exchanges
import pytest


@pytest.fixture(scope="module")
def told():
    result = subprocess.run([sys.executable, jax_exchanges.__file__], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("pieces", ["1", "2", "3"])
def test_gradients_are_exchanged_once_a_step_in_however_many_pieces(told, pieces):
    exchanges = told["exchanges"][pieces]
    assert not any(within_a_loop for within_a_loop, _ in exchanges)
    # Beside the gradients the loss and what its mean counts.
    assert sum(numbers for _, numbers in exchanges) == pytest.approx(told["weights"], rel=0.02)


def test_each_device_drops_by_itself(told):
    logits = told["shared"]["logits"]
    by_device = [tuple(map(tuple, logits[first : first + 5])) for first in range(0, jax_exchanges.ROWS, 5)]
    assert len(set(by_device)) == 4  # of the same text in every row


def test_seeds_go_on_as_on_one_device(told):
    assert told["shared"]["seeds"] == told["alone"]["seeds"] != told["seeds"]
