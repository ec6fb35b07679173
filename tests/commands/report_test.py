import json

import films
import pytest

from tf_finetune.commands.report import report
from tf_finetune.commands.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint):
    folder = tmp_path_factory.mktemp("report")
    config = films.three_epochs(films.write_films(folder / "films.csv"), tiny_checkpoint)
    train(config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def facts(run):
    return report(run)


def test_first(run, facts):
    assert json.loads((run / "report.json").read_text()) == facts
    print((run / "report.html").read_text()[:3000])
