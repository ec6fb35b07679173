import contextlib
from unittest import mock

import films
import pytest
from data_fixtures import add_dataset, datasets_cache

from tf_finetune import matrix_rate

__all__ = ["add_dataset", "datasets_cache"]


@pytest.fixture(autouse=True, scope="session")
def little_is_measured():
    """Of the matrix rate, which is a fifth of a second otherwise."""
    with mock.patch.object(matrix_rate, "SECONDS", 0.01):
        yield


@pytest.fixture
def table(tmp_path):
    return films.write_films(tmp_path / "films.csv")


@pytest.fixture
def config(table, tiny_checkpoint):
    return films.one_epoch(table, tiny_checkpoint)


@pytest.fixture(scope="module")
def eagerly_throughout():
    """Without graphs, which take longer to trace than the few steps of most tests here take by themselves; that graphs
    do the same is for train_test, resume_test and the roads to find."""
    with _eagerly():
        yield


@pytest.fixture
def eagerly():
    """The same for one test."""
    with _eagerly():
        yield


@contextlib.contextmanager
def _eagerly():
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
