import films
import pytest
from data_fixtures import add_dataset, datasets_cache

__all__ = ["add_dataset", "datasets_cache"]


@pytest.fixture
def table(tmp_path):
    return films.write_films(tmp_path / "films.csv")


@pytest.fixture
def config(table, tiny_checkpoint):
    return films.one_epoch(table, tiny_checkpoint)
