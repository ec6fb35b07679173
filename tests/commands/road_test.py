"""The whole road on real weights: a csv with three named classes, from train to an answer without Python TensorFlow."""

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import faults
import numpy as np
import pytest
import sabotage
from in_process import tf_finetune

from tf_finetune import cli
from tf_finetune.commands.restore import temperature_of
from tf_finetune.serving.export import versions
from tf_finetune.workdir import EXPORT_LOCK, Workdir

PHRASES = {
    "billing": ("please refund my invoice", "I was charged twice on my card", "the payment failed again"),
    "praise": ("I love this product", "the support team is great", "a very happy customer writes"),
    "technical": ("the app crashes on start", "there is an error when saving", "the screen stays black"),
}
TEXTS = ["the invoice shows a wrong payment", "it crashes with a black screen", "what a great and happy team"]


def as_a_process(*arguments):
    """Runs the command line as a user does; returns the finished process."""
    command = [sys.executable, "-m", "tf_finetune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def best_checkpoint(workdir):
    return workdir / "checkpoints" / json.loads((workdir / "best.json").read_text())["checkpoint"]


def newest_export(workdir):
    return workdir / "export" / str(max(versions(workdir / "export")))


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tickets.csv"
    chosen = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "message", "team"])
        for index in range(240):
            team = chosen.choice(sorted(PHRASES))
            writer.writerow([index, f"{chosen.choice(PHRASES[team])}, ticket {index}", team])
    return path


@pytest.fixture(scope="module")
def columns():
    return ["--config.data.text_column=message", "--config.data.label_column=team"]


@pytest.fixture(scope="module")
def trained(table, columns, packaged_checkpoint, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    result = as_a_process(
        "train", f"--config=my_data:{table}", f"--workdir={workdir}", *columns,
        "--config.train.epochs=2", "--config.train.batch_size=16", "--config.train.log_every_steps=5",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return workdir, result


@pytest.fixture(scope="module")
def exported(trained):
    workdir, _ = trained
    result = as_a_process("export", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_train_says_what_it_does(trained):
    _, result = trained
    assert "3 labels: billing, praise, technical" in result.stdout
    assert result.stderr == ""  # a new head is no news where a head is to be trained
    assert "best validation accuracy" in result.stdout
    assert "I0000" not in result.stderr


def test_metrics_are_one_object_a_line(trained):
    workdir, _ = trained
    records = json_lines((workdir / "metrics.jsonl").read_text())
    train_steps = [record["step"] for record in records if record["split"] == "train"]
    assert train_steps[:2] == [5, 10]
    validation = [record["accuracy"] for record in records if record["split"] == "validation"]
    assert len(validation) == 3  # before training, and after each of two epochs
    assert validation[-1] > 0.9 > validation[0]


def test_the_resolved_config_is_kept(trained, table):
    workdir, _ = trained
    config = json.loads((workdir / "config.json").read_text())
    assert config["data"]["source"] == str(table)
    assert config["train"]["batch_size"] == 16


def test_pytorch_opens_the_checkpoint(trained):
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs the `parity` extra")
    import transformers

    workdir, _ = trained
    folder = best_checkpoint(workdir)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.softmax(model(**encoded).logits / temperature_of(folder), dim=-1).numpy()
    answers = json_lines(tf_finetune("predict", f"--workdir={workdir}", *TEXTS).stdout)
    got = [[answer["probabilities"][name] for name in ("billing", "praise", "technical")] for answer in answers]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert model.config.id2label == {0: "billing", 1: "praise", 2: "technical"}


def test_evaluate_writes_what_it_prints(trained):
    workdir, _ = trained
    result = tf_finetune("evaluate", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    content = json.loads((workdir / "evaluation.json").read_text())
    assert set(content) == {"validation", "test"}
    assert content["test"]["accuracy"] > 0.9
    assert f"{content['test']['f1']:.4f}" in result.stdout


def test_predict_from_arguments_standard_input_and_file_agree(trained, tmp_path):
    workdir, _ = trained
    path, table = tmp_path / "texts.txt", tmp_path / "texts.csv"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    table.write_text("id,message\n" + "".join(f"{i},{text}\n" for i, text in enumerate(TEXTS)), encoding="utf-8")
    from_arguments = tf_finetune("predict", f"--workdir={workdir}", *TEXTS)
    from_stdin = tf_finetune("predict", f"--workdir={workdir}", stdin="\n".join(TEXTS) + "\n")
    from_file = tf_finetune("predict", f"--workdir={workdir}", f"--input={path}")
    from_table = tf_finetune("predict", f"--workdir={workdir}", f"--input={table}")
    assert from_arguments.stdout == from_stdin.stdout == from_file.stdout == from_table.stdout
    answers = json_lines(from_arguments.stdout)
    assert [answer["text"] for answer in answers] == TEXTS
    assert [answer["label"] for answer in answers] == ["billing", "technical", "praise"]
    for answer in answers:
        assert answer["score"] == answer["probabilities"][answer["label"]]
        assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_the_export_serves_the_label_as_its_string(exported):
    from tf_finetune.serving.session import run_in_c_api

    workdir, result = exported
    assert "exported to" in result.stdout
    assert "BROKEN" not in result.stdout
    [answer] = run_in_c_api(workdir / "export" / "1", [("serving_default", {"text": TEXTS})])
    predicted = json_lines(tf_finetune("predict", f"--workdir={workdir}", *TEXTS).stdout)
    assert answer["label"] == [line["label"] for line in predicted]
    np.testing.assert_allclose(answer["score"], [line["score"] for line in predicted], atol=1e-4)
    expected = [list(line["probabilities"].values()) for line in predicted]
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-4)


def test_a_second_export_is_version_2(exported):
    workdir, _ = exported
    result = tf_finetune("export", f"--workdir={workdir}", "--config.export.verify=false")
    assert result.returncode == 0, result.stderr
    files = ["README.md", "batching.config", "models.config", "monitoring.config"]
    assert sorted(path.name for path in (workdir / "export").iterdir()) == ["1", "2", *files]


def test_verify_is_red_on_flipped_weights(exported, tmp_path):
    workdir, _ = exported
    copy = tmp_path / "workdir"
    shutil.copytree(workdir, copy)
    shard = next(newest_export(copy).glob("variables/variables.data-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    result = tf_finetune("verify", f"--workdir={copy}")
    assert result.returncode == 1
    assert "BROKEN" in result.stdout
    assert result.stderr.startswith("error: the export broke a promise")


def test_verify_is_red_on_swapped_labels(exported, tmp_path):
    """An export whose label names are in another order than the checkpoint's."""
    copy = shutil.copytree(exported[0], tmp_path / "workdir")
    checkpoint, version = best_checkpoint(copy), newest_export(copy)
    config = json.loads((checkpoint / "config.json").read_text())
    config["id2label"] = {"0": "praise", "1": "billing", "2": "technical"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    sabotage.hide(checkpoint)
    kept = json.loads((version / "manifest.json").read_text())
    kept["checkpoint"] = json.loads((checkpoint / "manifest.json").read_text())["files"]
    (version / "manifest.json").write_text(json.dumps(kept))
    result = tf_finetune("verify", f"--workdir={copy}")
    assert result.returncode == 1
    assert "BROKEN  labels are the checkpoint's" in result.stdout
    assert result.stderr.startswith("error: the export broke a promise: label names are in the graph, in their order")


def test_verify_refuses_an_export_of_another_checkpoint(exported, tmp_path, capsys):
    copy = shutil.copytree(exported[0], tmp_path / "workdir")
    path = newest_export(copy) / "manifest.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"checkpoint": {}}))
    assert cli.main(["tf-finetune", "verify", f"--workdir={copy}"]) == 2
    assert "the newest export was made from another checkpoint" in capsys.readouterr().err


def test_a_kill_during_export_leaves_no_version(trained, tmp_path):
    copy = Path(shutil.copytree(trained[0], tmp_path / "workdir", ignore=shutil.ignore_patterns("export")))
    command = [sys.executable, faults.__file__, "describing", "1", "sigkill", "export", f"--workdir={copy}"]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    left = [path.name for path in (copy / "export").iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".1-")
    result = tf_finetune("export", f"--workdir={copy}", "--config.export.verify=false")
    assert result.returncode == 0, result.stderr
    assert left[0] not in [path.name for path in (copy / "export").iterdir()]
    assert (copy / "export" / "1" / "saved_model.pb").is_file()


def test_two_exports_at_once(exported, capsys):
    workdir, _ = exported
    with Workdir(workdir).locked(EXPORT_LOCK, what="export"):
        assert cli.main(["tf-finetune", "export", f"--workdir={workdir}"]) == 2
    assert f"error: another export is at work in the working directory, in {workdir}" in capsys.readouterr().err


class TestAnExportAlone:
    """An export that was copied somewhere, without the run it came from."""

    @pytest.fixture(scope="class")
    @staticmethod
    def copied(exported, tmp_path_factory):
        return shutil.copytree(exported[0] / "export" / "1", tmp_path_factory.mktemp("somewhere") / "model" / "7")

    @pytest.fixture(scope="class")
    @staticmethod
    def expected(exported):
        return json_lines(tf_finetune("predict", f"--workdir={exported[0]}", *TEXTS, "").stdout)

    def test_it_predicts_what_the_workdir_does(self, copied, expected):
        result = as_a_process("predict", f"--saved_model={copied.parent}", *TEXTS, "")
        assert (result.returncode, result.stderr) == (0, "")
        for answer, wanted in zip(json_lines(result.stdout), expected, strict=True):
            assert list(answer) == list(wanted)
            assert (answer["text"], answer["label"]) == (wanted["text"], wanted["label"])
            assert answer["score"] == pytest.approx(wanted["score"], abs=1e-4)
            assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-4)

    def test_it_is_verified_by_the_answers_it_carries(self, copied):
        result = tf_finetune("verify", f"--saved_model={copied}")
        assert result.returncode == 0, result.stdout + result.stderr
        assert "12 of 12 equal" in result.stdout
        assert "saved_model_cli scan" in result.stdout

    @pytest.mark.parametrize("damage", ["a flipped byte in a shard", "a missing shard"])
    def test_a_damaged_one_predicts_nothing(self, copied, tmp_path, capsys, damage):
        other = Path(shutil.copytree(copied, tmp_path / "1"))
        sabotage.SABOTAGES[damage](other)
        assert cli.main(["tf-finetune", "predict", "hello", f"--saved_model={other}"]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("error: an export file is missing or altered, in ")
        assert not out

    def test_the_folder_above_is_named(self, exported, capsys):
        assert cli.main(["tf-finetune", "predict", "hello", f"--saved_model={exported[0]}"]) == 2
        found = f"such as {exported[0] / 'export'}, got a folder with neither saved_model.pb nor numbered versions"
        assert found in capsys.readouterr().err

    @pytest.mark.parametrize("command", [["verify"], ["predict", "hello"]])
    def test_what_is_no_export(self, copied, tmp_path, command, capsys):
        assert cli.main(["tf-finetune", *command, f"--saved_model={tmp_path}"]) == 2
        assert f"error: no export, in {tmp_path}" in capsys.readouterr().err
        other = shutil.copytree(copied, tmp_path / "1")
        (other / "manifest.json").unlink()
        assert cli.main(["tf-finetune", *command, f"--saved_model={other}"]) == 2
        assert "error: not an export of this package" in capsys.readouterr().err


def test_another_run_in_the_workdir_is_refused(trained, table, columns):
    workdir, _ = trained
    before = sorted(path for path in workdir.rglob("*"))
    result = tf_finetune("train", f"--config=my_data:{table}", f"--workdir={workdir}", *columns)
    assert result.returncode == 2
    assert (
        "the working directory holds a run of another config: train.epochs is 2 there and 3 here" not in result.stderr
    )
    assert "holds a run of another config: train.batch_size is 16 there and 32 here, in" in result.stderr
    assert sorted(path for path in workdir.rglob("*")) == before


def test_a_restart_with_bad_data_keeps_the_old_run(trained):
    workdir, _ = trained
    before = sorted(path for path in workdir.rglob("*"))
    result = tf_finetune("train", "--config=my_data:nowhere.csv", f"--workdir={workdir}", "--restart")
    assert result.returncode == 2
    assert sorted(path for path in workdir.rglob("*")) == before


def test_what_a_trained_model_cannot_change_is_refused(trained):
    workdir, _ = trained
    result = tf_finetune("evaluate", f"--workdir={workdir}", "--config.data.max_length=64")
    assert result.returncode == 2
    assert "evaluate cannot change data.max_length of a trained model" in result.stderr


def test_evaluate_measures_the_whole_of_other_data(trained, columns, tmp_path):
    workdir, _ = trained
    path = tmp_path / "new_week.csv"
    path.write_text("message,team\nplease refund me,billing\nI love it,praise\n", encoding="utf-8")
    result = tf_finetune("evaluate", f"--workdir={workdir}", f"--config.data.source={path}")
    assert result.returncode == 0, result.stderr
    content = json.loads((workdir / "evaluation.json").read_text())
    assert set(content) == {"test"}
    assert (content["test"]["examples"], content["test"]["source"]) == (2, str(path))
    assert content["test"]["labels"] == ["billing", "praise", "technical"]


def test_evaluate_refuses_a_label_the_model_does_not_know(trained, tmp_path):
    workdir, _ = trained
    path = tmp_path / "test.csv"
    path.write_text("message,team\nwhere is my parcel,delivery\n", encoding="utf-8")
    result = tf_finetune("evaluate", f"--workdir={workdir}", f"--config.data.source={path}")
    assert result.returncode == 2
    assert "expected billing or praise or technical, got 'delivery'" in result.stderr


def test_an_altered_checkpoint_is_refused(trained, tmp_path):
    workdir, _ = trained
    copy = tmp_path / "workdir"
    shutil.copytree(workdir, copy)
    weights = next(copy.glob("checkpoints/*/model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    result = tf_finetune("predict", f"--workdir={copy}", "hello")
    assert result.returncode == 2
    assert "a checkpoint file is missing or altered" in result.stderr
