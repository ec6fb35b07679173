"""A sweep ranks its trials, and survives whatever a run survives."""

import json

import faults
import pytest

from tf_finetune import InputError
from tf_finetune.commands import sweep as module
from tf_finetune.commands.sweep import sweep
from tf_finetune.commands.train import train
from tf_finetune.config import Schedule
from tf_finetune.errors import RunError
from tf_finetune.hub import OFFLINE, DownloadBroken, HubUnreachable
from tf_finetune.settings import load_json

pytestmark = pytest.mark.usefixtures("eagerly_throughout")
SEARCH = ["optimizer.learning_rate=1e-4..1e-2,log", "optimizer.schedule=linear,cosine"]


@pytest.fixture
def config(config):
    config.train.batch_size = 32
    return config


@pytest.fixture
def made_up(tiny_checkpoint, monkeypatch):
    """Trainings that take no time; a test may give trials other metrics, or an error."""
    outcomes = {}

    def train_nothing(chosen, folder, **options):
        outcome = outcomes.get(folder.name, outcomes.get("all", {}))
        if isinstance(outcome, Exception):
            raise outcome
        kept = folder / "checkpoints" / "step_00000001"
        kept.mkdir(parents=True)
        architecture = json.loads((tiny_checkpoint / "config.json").read_text()) | {"id2label": {"0": "a", "1": "b"}}
        (kept / "config.json").write_text(json.dumps(architecture))
        metrics = {"accuracy": 0.5 + int(folder.name) / 100, "loss": 0.6, "roc_auc": 0.9 - int(folder.name) / 100}
        return {"checkpoint": kept.name, "validation": metrics | outcome}

    monkeypatch.setattr(module, "train", train_nothing)
    return outcomes


def test_all_of_it(config, tmp_path, capsys):
    root = tmp_path / "sweep"
    rows = sweep(config, root, search=SEARCH, trials=2)
    printed = capsys.readouterr().out
    assert json.loads((root / "sweep.json").read_text()) == rows
    assert sorted(row["trial"] for row in rows) == [0, 1]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert len({row["values"]["optimizer.learning_rate"] for row in rows}) == 2
    for row in rows:
        folder = root / "trials" / f"{row['trial']:04d}"
        trained = load_json(folder / "config.json")
        assert trained.optimizer.learning_rate == row["values"]["optimizer.learning_rate"]
        assert trained.optimizer.schedule is Schedule(row["values"]["optimizer.schedule"])
        assert row["score"] == row["validation"]["accuracy"]
        assert row["validation"] == json.loads((folder / "best.json").read_text())["validation"]
        assert (folder / "checkpoints").exists() == (row is rows[0])
    lines = printed[printed.index("rank  trial") :].splitlines()
    assert [int(line.split()[1]) for line in lines[1:3]] == [row["trial"] for row in rows]


def test_killed_twice_it_is_complete(config, tmp_path, monkeypatch):
    root, trained = tmp_path / "sweep", []

    def counted(chosen, folder, **options):
        trained.append(folder.name)
        return train(chosen, folder, **options)

    monkeypatch.setattr(module, "train", counted)
    for point, number in (("step", 5), ("saving", 2)):
        with monkeypatch.context() as patched:
            faults.at(point, number, faults.killed, set_attribute=patched.setattr)
            with pytest.raises(faults.KilledError):
                sweep(config, root, search=SEARCH, trials=3)
    rows = sweep(config, root, search=SEARCH, trials=3)
    assert sorted(row["trial"] for row in rows) == [0, 1, 2]
    assert all("validation" in row for row in rows)
    assert sorted(set(trained)) == ["0000", "0001", "0002"]
    assert len(trained) == 5  # the two that were killed began once more
    before = len(trained)
    assert sweep(config, root, search=SEARCH, trials=3) == rows
    assert len(trained) == before
    assert len(sweep(config, root, search=SEARCH, trials=4)) == 4


def test_a_trial_that_fails_is_said_to_and_the_rest_goes_on(config, tmp_path, made_up, capsys):
    made_up["0001"] = RunError("the loss is not finite")
    rows = sweep(config, tmp_path / "sweep", search=SEARCH, trials=3)
    assert [row["trial"] for row in rows] == [2, 0, 1]
    assert rows[-1]["error"] == "the loss is not finite"
    out, err = capsys.readouterr()
    assert "trial 0001 failed: the loss is not finite" in err
    assert "failed" in out.splitlines()[-2]


def test_a_first_trial_of_bad_input_leaves_the_folder_to_be_used(config, tmp_path):
    config.model.lora_rank = 2
    with pytest.raises(InputError, match="wrong value for model.reinit_layers, expected 0 beside model.lora_rank"):
        sweep(config, tmp_path / "sweep", search=["model.reinit_layers=1"], trials=2)
    rows = sweep(config, tmp_path / "sweep", search=["model.reinit_layers=0"], trials=1)
    assert "validation" in rows[0]


def test_bad_input_of_a_later_trial_fails_that_one(config, tmp_path, made_up):
    made_up["0001"] = InputError("the model has fewer blocks")
    rows = sweep(config, tmp_path / "sweep", search=SEARCH, trials=3)
    assert [("error" in row) for row in rows] == [False, False, True]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "error", [HubUnreachable("no hub", where="a/b", reason="no route"), DownloadBroken("the download broke off")]
)
def test_a_hub_out_of_reach_is_no_trials_fault(config, tmp_path, made_up, number, error):
    name = f"{number:04d}"
    made_up[name] = error
    with pytest.raises(type(error)):
        sweep(config, tmp_path / "sweep", search=SEARCH, trials=2)
    del made_up[name]
    rows = sweep(config, tmp_path / "sweep", search=SEARCH, trials=2)
    assert {row["trial"] for row in rows if "score" in row} == {0, 1}


def test_what_is_not_in_the_cache_fails_a_trial_where_the_hub_is_not_to_be_asked(config, tmp_path, made_up):
    made_up["0001"] = HubUnreachable("no hub", where="a/b", reason=OFFLINE)
    rows = sweep(config, tmp_path / "sweep", search=SEARCH, trials=3)
    assert [row["trial"] for row in rows if "score" not in row] == [1]


def test_three_failures_in_a_row_end_it(config, tmp_path, made_up):
    made_up["all"] = RunError("no space left on device")
    with pytest.raises(RunError, match="3 trials in a row failed, the last one in .*0002"):
        sweep(config, tmp_path / "sweep", search=SEARCH, trials=9)
    made_up.clear()
    rows = sweep(config, tmp_path / "sweep", search=SEARCH, trials=4)
    assert [("error" in row) for row in rows] == [False, True, True, True]


def test_among_equals_the_lower_loss_is_first_and_keeps_its_checkpoints(config, tmp_path, made_up):
    for number, loss in enumerate((0.5, 0.4, 0.6)):
        made_up[f"{number:04d}"] = {"accuracy": 0.9, "loss": loss}
    rows = sweep(config, tmp_path / "sweep", search=SEARCH, trials=3)
    assert [row["trial"] for row in rows] == [1, 0, 2]
    kept = [number for number in range(3) if (tmp_path / "sweep" / "trials" / f"{number:04d}" / "checkpoints").exists()]
    assert kept == [1]


def test_the_metric_asked_for_ranks(config, tmp_path, made_up, capsys):
    config.train.best_metric = "roc_auc"
    rows = sweep(config, tmp_path / "sweep", search=SEARCH, trials=2)
    assert [row["trial"] for row in rows] == [0, 1]
    assert [row["score"] for row in rows] == [0.9, 0.89]
    assert "roc_auc 0.9000  loss 0.6000" in capsys.readouterr().out


def test_a_metric_that_there_is_not_for_the_answers_fails_a_trial(config, tmp_path, made_up):
    config.train.best_metric, made_up["0001"] = "f1", {"f1": 0.7}
    rows = sweep(config, tmp_path / "sweep", search=SEARCH, trials=2)
    assert [row["trial"] for row in rows] == [1, 0]
    assert rows[1]["error"] == "no f1 of these answers"


def test_a_budget_that_each_run_would_find_anew(config, tmp_path):
    config.train.batch_tokens = 0
    with pytest.raises(InputError, match="no common budget, in train.batch_tokens"):
        sweep(config, tmp_path / "sweep", search=SEARCH, trials=1)


def test_another_sweep_in_the_folder(config, tmp_path, made_up):
    sweep(config, tmp_path / "sweep", search=SEARCH, trials=1)
    with pytest.raises(InputError, match="the folder is for other runs, in .*, expected what it was begun with"):
        sweep(config, tmp_path / "sweep", search=SEARCH[:1], trials=1)
    config.train.batch_size = 8
    with pytest.raises(InputError, match="the folder is for other runs"):
        sweep(config, tmp_path / "sweep", search=SEARCH, trials=1)


def test_a_folder_with_a_run(config, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="the folder holds a run, in .*, expected a folder for several runs"):
        sweep(config, tmp_path, search=SEARCH, trials=1)


def test_no_trials(config, tmp_path):
    with pytest.raises(InputError, match="no trials, in --trials, expected 1 or more, got 0"):
        sweep(config, tmp_path / "sweep", search=SEARCH, trials=0)


def test_without_optuna(config, tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="a sweep needs optuna, not installed here, .*, expected pip install optuna"):
        sweep(config, tmp_path / "sweep", search=SEARCH, trials=1)
    assert not (tmp_path / "sweep").exists()
