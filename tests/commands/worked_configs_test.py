"""The config of each task, on a stand-in that is laid out as its dataset is, with a tiny model: train to evaluate."""

import io

import datasets
from stand_ins import config_lines

from tf_finetune import settings
from tf_finetune.commands.evaluate import evaluate
from tf_finetune.commands.predict import predict
from tf_finetune.commands.train import train
from tf_finetune.config import ProblemType

SPLITS = ("train", "validation", "test")
TEXTS = [f"{word} number {i} of them" for i in range(20) for word in ("card", "late", "happy", "angry")]


def parquet(features, rows):
    content = io.BytesIO()
    datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(content)
    return content.getvalue()


def splits(features, rows, names, folder="data"):
    """The files of a dataset, the same rows in each of its splits; what is text but for labels has the split's name."""

    def of_split(name, row):
        is_text = {key: isinstance(value, str) and key != "label_text" for key, value in row.items()}
        return {key: f"{name} {value}" if is_text[key] else value for key, value in row.items()}

    return {
        f"{folder}/{name}-00000-of-00001.parquet": parquet(features, [of_split(name, row) for row in rows])
        for name in names
    }


def run(name, workdir):
    """Trains a worked config, with another model and for an epoch, and evaluates; returns its config and metrics."""
    config = settings.load(name)
    config.model.checkpoint, config.train.epochs = "random-tiny", 1
    train(config, workdir)
    return settings.load_json(workdir / "config.json"), evaluate(workdir)


class TestOnTheHub:
    def test_pairs(self, add_dataset, tmp_path):
        names = ["entailment", "neutral", "contradiction"]
        features = {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": datasets.ClassLabel(names=names),
        }
        rows = [{"premise": text, "hypothesis": text[::-1], "label": i % 4 - 1} for i, text in enumerate(TEXTS)]
        add_dataset("stanfordnlp/snli", splits(features, rows, SPLITS, "plain_text"))
        config, metrics = run("snli_bert_base", tmp_path / "run")
        assert metrics["test"]["examples"] == 60  # a quarter has no label
        assert metrics["test"]["labels"] == sorted(names)
        assert {"accuracy", "f1"} <= set(metrics["test"])
        (answer,) = predict(tmp_path / "run", [("a card", "no card")])
        assert answer["text_pair"] == "no card"
        assert answer["label"] in names
        assert config.data.source.startswith("hub:stanfordnlp/snli@")

    def test_several_labels(self, add_dataset, tmp_path):
        names = ["anger", "joy", "neutral"]
        features = {
            "text": datasets.Value("string"),
            "labels": datasets.Sequence(datasets.ClassLabel(names=names)),
            "id": datasets.Value("string"),
        }
        rows = [
            {"text": text, "labels": [i % 3] if i % 5 else [0, 1 + i % 2], "id": str(i)} for i, text in enumerate(TEXTS)
        ]
        files = splits(features, rows, SPLITS, "simplified")
        files["raw/train-00000-of-00001.parquet"] = next(iter(files.values()))
        files["README.md"] = f"---\nconfigs:\n{config_lines({'raw': ['train'], 'simplified': SPLITS})}\n---\n".encode()
        add_dataset("google-research-datasets/go_emotions", files)
        config, metrics = run("go_emotions_bert_base", tmp_path / "run")
        assert metrics["test"]["labels"] == names
        assert {"f1", "f1_macro"} <= set(metrics["test"])
        assert config.train.best_metric == "f1_macro"
        (answer,) = predict(tmp_path / "run", ["a happy card"])
        assert list(answer["probabilities"]) == names

    def test_many_classes(self, add_dataset, tmp_path):
        features = {
            "text": datasets.Value("string"),
            "label": datasets.Value("int32"),
            "label_text": datasets.Value("string"),
        }
        rows = [{"text": text, "label": i % 77, "label_text": f"topic_{i % 77}"} for i, text in enumerate(TEXTS * 3)]
        add_dataset("mteb/banking77", splits(features, rows, ("train", "test")))
        config, metrics = run("banking77_bert_base", tmp_path / "run")
        assert len(metrics["test"]["labels"]) == len(metrics["test"]["confusion_matrix"]) == 77
        assert config.train.best_metric == "f1"
        (answer,) = predict(tmp_path / "run", ["where is my card"])
        assert answer["label"].startswith("topic_")


def test_numbers(tmp_path, monkeypatch):
    """The real sentences and what people rated them; few of them, as the model is no real one."""
    load = settings.load

    def few(name):
        config = load(name)
        config.data.max_examples = 200
        return config

    monkeypatch.setattr(settings, "load", few)
    config, metrics = run("review_ratings", tmp_path / "run")
    assert config.model.problem_type is ProblemType.REGRESSION
    assert {"pearson", "spearman", "mean_absolute_error", "loss"} <= set(metrics["test"])
    (answer,) = predict(tmp_path / "run", ["a fine film"])
    assert -6 < answer["score"] < 6
