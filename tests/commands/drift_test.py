"""`tf-finetune drift` through the real command line, on tiny runs and texts that were shifted by hand."""

import json
import random
import re

import films
import pytest
from in_process import tf_finetune

import tf_finetune as package
from tf_finetune import settings
from tf_finetune.commands import drift as command
from tf_finetune.commands.train import train
from tf_finetune.config import ExperimentConfig, ProblemType
from tf_finetune.errors import FOUND_STATUS

PROPERTIES = ["tokens", "unknown_tokens", "predicted_class", "confidence"]


def film(chosen, *, words=(2, 30), extra=()):
    text = chosen.choices(films.FILLERS, k=chosen.randrange(*words))
    text.insert(chosen.randrange(len(text)), chosen.choice(["good", "great", "bad", "dull"]))
    return " ".join([*text, *extra])


def written(path, texts):
    """A table of texts with a label that is in some of them."""
    rows = [f"{text},{'pos' if 'good' in text or 'great' in text else 'neg'}" for text in texts]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def trained(folder, checkpoint, **changes):
    """A run whose test split has 300 texts."""
    chosen = random.Random(0)
    data = folder / "data"
    data.mkdir()
    for name, size in (("train", 96), ("validation", 40), ("test", 300)):
        written(data / f"{name}.csv", [film(chosen) for _ in range(size)])
    config = films.one_epoch(data, checkpoint)
    train(settings.with_values(config, changes), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint):
    return trained(tmp_path_factory.mktemp("films"), tiny_checkpoint)


@pytest.fixture
def same(tmp_path):
    """New texts of the same kind, one a line."""
    chosen = random.Random(1)
    path = tmp_path / "same.txt"
    path.write_text("\n".join(film(chosen) for _ in range(300)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def longer(tmp_path):
    """New texts that go on twice as long and beyond max_length, as a table without labels of another column."""
    chosen = random.Random(2)
    texts = [film(chosen, words=(30, 60)) for _ in range(200)]
    path = tmp_path / "longer.csv"
    path.write_text("body\n" + "\n".join(texts) + "\n", encoding="utf-8")
    return path


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def drift(run, data, *more):
    return tf_finetune("drift", f"--reference={run}", f"--data={data}", *more)


def test_texts_of_the_same_kind(run, same):
    before = files_in(run.parent), files_in(same.parent)
    answered = drift(run, same)
    assert answered.returncode == 0, answered.stderr
    lines = answered.stdout.splitlines()
    assert lines[0] == f"reference: the test split of {run}, 300 texts"
    assert lines[1] == f"new: {same}, 300 texts"
    assert [line[:18].strip() for line in lines[3:7]] == [
        name.replace("_", " ") for name in ["tokens_a_text", *PROPERTIES[1:]]
    ]
    assert all(line.endswith("  stable") for line in lines[3:7])
    assert lines[-1].startswith("no drift found: the new texts and their answers look like those of the test split")
    assert (files_in(run.parent), files_in(same.parent)) == before


def test_longer_texts(run, longer, tmp_path):
    """Of which the model sees 32 tokens, and the length counts them all."""
    report = tmp_path / "report.json"
    answered = drift(run, longer, "--config.data.text_column=body", "--json", report)
    assert answered.returncode == FOUND_STATUS == 3, answered.stderr
    assert answered.stderr == ""
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["verdict"] == "major"
    assert content["reference"] == {"workdir": str(run), "split": "test", "texts": 300}
    assert content["new"] == {"source": str(longer), "texts": 200, "texts_in_all": 200}
    assert list(content["properties"]) == PROPERTIES
    tokens = content["properties"]["tokens"]
    assert tokens["verdict"] == "major"
    assert tokens["new_mean"] > 32
    assert sum(row["reference"] for row in tokens["bins"]) == 300
    assert sum(row["new"] for row in tokens["bins"]) == 200
    assert content["properties"]["unknown_tokens"]["verdict"] == "stable"
    mean = {name: format(tokens[f"{name}_mean"], ".1f") for name in ("new", "reference")}
    assert re.search(
        rf"^major drift: the new texts are longer \(a mean of {mean['new']} tokens instead of {mean['reference']}"
        rf"\).*: label some and evaluate before trusting the answers: tf-finetune evaluate --workdir={run} ",
        answered.stdout.splitlines()[-1],
    )


def test_unknown_words(run, tmp_path):
    """The reference has none, so that its unknown share is constant."""
    chosen = random.Random(3)
    data = written(tmp_path / "unknown.csv", [film(chosen, words=(2, 28), extra=["zebra"]) for _ in range(200)])
    answered = drift(run, data)
    assert answered.returncode == FOUND_STATUS
    [row] = [line for line in answered.stdout.splitlines() if line.startswith("unknown tokens")]
    assert row.split()[2] == "0.00%"
    assert row.endswith("  major")
    assert "more of the tokens are unknown (a mean of " in answered.stdout.splitlines()[-1]


def test_unknown_tokens_are_a_share_of_the_texts_own(run):
    """By hand: [CLS] and [SEP] are not counted, and an empty text has no unknown token."""
    from tf_finetune.commands.drift_words import TOKENS, UNKNOWN
    from tf_finetune.commands.restore import load_classifier, trained_run
    from tf_finetune.data.examples import Examples

    classifier = load_classifier(*trained_run("drift", run, None))
    measured = command._measured(classifier, Examples.unlabelled(["a zebra film . zebra", "zebra", ""]))
    assert measured[TOKENS].tolist() == [7, 3, 2]
    assert measured[UNKNOWN].tolist() == [0.4, 1, 0]


def test_the_shares_of_the_classes_that_drifted(run, tmp_path):
    """Texts that the model answers with one class alone: those that `predict` said it for."""
    chosen = random.Random(4)
    texts = [film(chosen) for _ in range(1500)]
    answers = list(package.predict(run, texts))
    labels = [answer["label"] for answer in answers]
    most = max(set(labels), key=labels.count)
    data = tmp_path / "one_class.txt"
    data.write_text("\n".join(text for text, label in zip(texts, labels, strict=True) if label == most) + "\n")
    answered = drift(run, data)
    assert answered.returncode == FOUND_STATUS
    assert re.search(rf"^  {most} +[\d.]+% -> 100.0%$", answered.stdout, flags=re.MULTILINE)
    assert f"'{most}' is answered more often (100.0% instead of " in answered.stdout.splitlines()[-1]


def test_in_python(run, same, tmp_path):
    found = package.drift(run, same)
    assert (found["verdict"], list(found["properties"])) == ("stable", PROPERTIES)
    assert drift(run, same, f"--json={tmp_path / 'report.json'}").returncode == 0
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == found


def test_of_many_texts_some_are_drawn(run, same, monkeypatch):
    monkeypatch.setattr(command, "MOST_TEXTS", 150)
    printed = drift(run, same).stdout.splitlines()
    assert printed[0].endswith(", 150 texts")
    assert printed[1].endswith("same.txt, 150 of 300 texts")


def test_few_texts_say_so(run, tmp_path):
    chosen = random.Random(5)
    data = written(tmp_path / "few.csv", [film(chosen) for _ in range(100)])
    answered = drift(run, data)
    assert answered.returncode == 0
    assert re.search(r"; among so few texts a PSI below 0\.\d\d would not stand out", answered.stdout.splitlines()[-1])


class TestWrongInput:
    """One line, status 2, and nothing written."""

    def refused(self, message, *arguments):
        answered = tf_finetune("drift", *arguments)
        assert answered.returncode == 2, answered.stdout
        assert answered.stdout == ""
        assert re.search(f"^error: {message}", answered.stderr.splitlines()[-1]), answered.stderr

    @pytest.mark.parametrize(
        ("content", "got"), [("", "0"), ("a film\n" * 99, "99")], ids=["an empty file", "one too few"]
    )
    def test_too_few_new_texts(self, run, tmp_path, content, got):
        (tmp_path / "few.txt").write_text(content)
        message = f"too few texts to tell drift from chance, in .*few.txt, expected 100 or more, got {got}$"
        self.refused(message, f"--reference={run}", f"--data={tmp_path / 'few.txt'}", f"--json={tmp_path / 'r.json'}")
        assert not (tmp_path / "r.json").exists()

    def test_too_few_texts_to_compare_with(self, table, config, same, tmp_path):
        train(config, tmp_path / "run")
        message = "too few texts to tell drift from chance, in the test split of .*run, expected 100 or more, got 1"
        self.refused(message, f"--reference={tmp_path / 'run'}", f"--data={same}")

    def test_a_missing_column(self, run, longer):
        message = "no such column, in .*longer.csv, expected a column 'text', got body"
        self.refused(message, f"--reference={run}", f"--data={longer}")

    def test_an_empty_table(self, run, tmp_path):
        (tmp_path / "empty.csv").write_text("")
        self.refused("no such column, in .*empty.csv", f"--reference={run}", f"--data={tmp_path / 'empty.csv'}")

    def test_what_a_trained_model_cannot_change(self, run, same):
        message = "drift cannot change data.max_length of a trained model, in .*config.json, expected 32"
        self.refused(message, f"--reference={run}", f"--data={same}", "--config.data.max_length=16")

    def test_a_pair_column_for_a_model_of_single_texts(self, run, longer):
        message = "drift cannot change data.text_pair_column of a trained model"
        self.refused(message, f"--reference={run}", f"--data={longer}", "--config.data.text_pair_column=body")

    def test_a_folder_without_a_run(self, same, tmp_path):
        self.refused("no trained model, in .*, expected a workdir", f"--reference={tmp_path}", f"--data={same}")

    def test_no_such_file(self, run, tmp_path):
        message = "no such file, in --data, expected a table, or a file of texts, got .*nowhere.txt"
        self.refused(message, f"--reference={run}", f"--data={tmp_path / 'nowhere.txt'}")

    def test_no_folder_for_the_report(self, run, same, tmp_path):
        message = "no folder for the report, in --json, expected a file in a folder, got .*r.json"
        self.refused(message, f"--reference={run}", f"--data={same}", f"--json={tmp_path / 'nowhere' / 'r.json'}")


def rows_of(size, seed):
    chosen = random.Random(seed)
    return [(film(chosen), film(chosen), chosen.choice(["neg", "pos"])) for _ in range(size)]


def written_rows(path, rows, label):
    content = [{"first": first, "second": second, "label": label(first, name)} for first, second, name in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")


def trained_on_rows(folder, checkpoint, label, **changes):
    data = folder / "data"
    data.mkdir()
    for seed, (name, size) in enumerate((("train", 64), ("validation", 20), ("test", 200))):
        written_rows(data / f"{name}.jsonl", rows_of(size, seed), label)
    config = films.one_epoch(data, checkpoint)
    config.data.text_column = "first"
    train(settings.with_values(config, changes), folder / "run")
    return folder / "run"


class TestOtherTasks:
    def test_pairs(self, tmp_path, tiny_checkpoint):
        run = trained_on_rows(tmp_path, tiny_checkpoint, lambda _, name: name, **{"data.text_pair_column": "second"})
        data = tmp_path / "new.tsv"
        data.write_text("first\tsecond\n" + "".join(f"{a}\t{b}\n" for a, b, _ in rows_of(200, 9)))
        answered = drift(run, data)
        assert answered.returncode == 0, answered.stderr
        single = tmp_path / "single.txt"
        single.write_text("a film\n" * 200)
        answered = drift(run, single)
        assert answered.returncode == 2
        assert "not a pair of texts, in " in answered.stderr
        assert "single.txt line 1, expected two texts with a tab between" in answered.stderr

    def test_numbers(self, tmp_path, tiny_checkpoint):
        """A number that follows the length: other lengths, other numbers."""
        run = trained_on_rows(
            tmp_path,
            tiny_checkpoint,
            lambda first, _: len(first.split()) + 0.5,
            **{"model.problem_type": ProblemType.REGRESSION},
        )
        chosen = random.Random(9)
        data = tmp_path / "new.txt"
        data.write_text("".join(film(chosen, words=(25, 30)) + "\n" for _ in range(200)))
        found = package.drift(run, data)
        assert list(found["properties"]) == ["tokens", "unknown_tokens", "predicted_number"]
        assert found["properties"]["tokens"]["verdict"] == "major"

    def test_several_labels(self, tmp_path, tiny_checkpoint):
        """A text counts once, by all its labels together."""
        words = ("film", "plot", "cast")
        run = trained_on_rows(
            tmp_path, tiny_checkpoint, lambda first, _: [word for word in words if word in first.split()]
        )
        data = tmp_path / "new.txt"
        data.write_text("".join(first + "\n" for first, *_ in rows_of(300, 9)))
        found = package.drift(run, data)
        bins = found["properties"]["predicted_class"]["bins"]
        assert sum(row["new"] for row in bins) == 300
        assert found["verdict"] == "stable"


def test_the_config_of_another_run_is_refused(run, same):
    """Python callers may hand over any config, and it must be the run's."""
    config = ExperimentConfig()
    with pytest.raises(package.InputError, match="drift cannot change"):
        package.drift(run, same, config)
