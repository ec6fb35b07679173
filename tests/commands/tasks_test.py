"""Pairs of texts, several labels a text, numbers and weights: from a file to an export that answers."""

import json

import export_readme
import keras
import numpy as np
import pytest

from tf_finetune import settings
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.commands import fit
from tf_finetune.commands.evaluate import evaluate
from tf_finetune.commands.export import export
from tf_finetune.commands.model_card import model_card
from tf_finetune.commands.predict import predict
from tf_finetune.commands.train import train
from tf_finetune.config import ClassWeights, ExperimentConfig, ProblemType
from tf_finetune.data.order import PADDING, BatchOrder
from tf_finetune.data.pipeline import batches
from tf_finetune.data.tokenized import TokenizedExamples
from tf_finetune.errors import InputError
from tf_finetune.serving.session import run_in_c_api

WORDS = ("good", "bad", "film", "plot", "long", "short", "music", "actor")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(size, words=8):
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, words)) + f" {i}" for i in range(size)]


def config_of(source, **data):
    config = ExperimentConfig()
    config.model.checkpoint = "random-tiny"
    config.data.source, config.data.max_length = source, 48
    for name, value in data.items():
        setattr(config.data, name, value)
    config.optimizer.learning_rate = 5e-3
    config.train.epochs, config.train.batch_size = 3, 8
    return config


def asked(workdir, inputs, signature="serving_default"):
    (answer,) = run_in_c_api(workdir / "export" / "1", [(signature, inputs)])
    return answer


def check_readme(workdir, keys):
    """Asks the export what its README asks, by text and by tokens, and compares with the answers it shows."""
    readme = (workdir / "export" / "README.md").read_text(encoding="utf-8")
    row, _, tokens = (body for _, body in export_readme.requests(readme))
    _, shown, *_ = (json.loads(block) for block in export_readme.blocks(readme, "json"))
    signature, inputs = export_readme.inputs_of(row, keys)
    served = asked(workdir, inputs, signature)
    shown = shown["outputs"] if isinstance(shown["outputs"], dict) else {"score": shown["outputs"]}
    assert shown.keys() == served.keys()
    for key, values in shown.items():
        if key in ("label", "labels"):
            assert np.ravel(values).tolist() == np.ravel(served[key]).tolist()
        else:
            np.testing.assert_allclose(served[key], values, atol=1e-4)
    by_tokens = asked(workdir, tokens["inputs"], tokens["signature_name"])
    if "probabilities" in shown:
        np.testing.assert_allclose(by_tokens["probabilities"], shown["probabilities"], atol=1e-4)
    else:
        np.testing.assert_allclose(by_tokens["logits"][:, 0], shown["score"], atol=1e-4)


class TestPairs:
    @pytest.fixture(scope="class")
    @staticmethod
    def workdir(tmp_path_factory):
        folder = tmp_path_factory.mktemp("pairs")
        rows = [
            {"premise": text, "hypothesis": other, "label": "same" if i % 2 else "other"}
            for i, (text, other) in enumerate(zip(texts(200), texts(200)[1:], strict=False))
        ]
        source = write(folder / "data.jsonl", rows)
        train(config_of(source, text_column="premise", text_pair_column="hypothesis"), folder / "run")
        export(folder / "run")
        return folder / "run"

    def test_second_text_counts(self, workdir):
        answers = list(predict(workdir, [("a good film", "bad music"), ("a good film", "short plot")]))
        assert [answer["text_pair"] for answer in answers] == ["bad music", "short plot"]
        assert answers[0]["score"] != answers[1]["score"]

    def test_order_counts(self, workdir):
        first, second = predict(workdir, [("a good film", "bad music"), ("bad music", "a good film")])
        assert first["probabilities"] != second["probabilities"]

    def test_export_answers_as_predict(self, workdir):
        (answer,) = predict(workdir, [("a good film", "[SEP] bad music")])
        served = asked(workdir, {"text": ["a good film"], "text_pair": ["[SEP] bad music"]})
        assert served["label"] == [answer["label"]]
        np.testing.assert_allclose(served["score"], [answer["score"]], atol=1e-5)

    def test_export_answers_as_its_readme_says(self, workdir):
        check_readme(workdir, ["text", "text_pair"])

    def test_export_carries_its_card(self, workdir):
        card = (workdir / "export" / "1" / "assets.extra" / "README.md").read_text(encoding="utf-8")
        assert card.startswith("# run, version 1\n\nA BERT classifier of pairs of texts")
        assert "- labels: other, same\n" in card

    def test_evaluate(self, workdir, capsys):
        results = evaluate(workdir)
        assert {"validation", "test"} == set(results)
        assert "accuracy" in capsys.readouterr().out

    def test_explained_by_the_tokens_of_both_texts(self, workdir):
        (answer,) = predict(workdir, [("a film", "bad music")], explain=True)
        tokens = answer["explanation"]["tokens"]
        assert "".join(token["piece"] for token in tokens if token["side"] == 0) == "afilm"
        assert "".join(token["piece"] for token in tokens if token["side"] == 1) == "badmusic"

    def test_a_lone_text_is_refused(self, workdir):
        with pytest.raises(InputError, match="the model was trained on pairs, got 'alone'"):
            list(predict(workdir, ["alone"]))


class TestSeveralLabels:
    @pytest.fixture(scope="class")
    @staticmethod
    def workdir(tmp_path_factory):
        folder = tmp_path_factory.mktemp("labels")
        rows = [{"text": text, "label": [word for word in WORDS[:3] if word in text]} for text in texts(200, words=3)]
        train(config_of(write(folder / "data.jsonl", rows)), folder / "run")
        export(folder / "run")
        return folder / "run"

    def test_checkpoint_says_what_it_is(self, workdir):
        best = json.loads((workdir / "best.json").read_text())
        assert {"loss", "accuracy", "f1", "f1_macro"} <= set(best["validation"])
        config = json.loads((workdir / "checkpoints" / best["checkpoint"] / "config.json").read_text())
        assert config["problem_type"] == "multi_label_classification"
        assert config["id2label"] == {"0": "bad", "1": "film", "2": "good"}

    def test_each_label_apart(self, workdir):
        (answer,) = predict(workdir, ["good film"])
        assert set(answer) == {"text", "labels", "probabilities"}
        assert answer["labels"] == [name for name, p in answer["probabilities"].items() if p >= 0.5]
        assert sum(answer["probabilities"].values()) != pytest.approx(1)

    def test_export_answers_as_predict(self, workdir):
        answers = list(predict(workdir, ["good film", "bad plot", "long"]))
        served = asked(workdir, {"text": ["good film", "bad plot", "long"]})
        named = np.array(served["labels"]).reshape(3, 3).tolist()
        assert [[name for name in row if name] for row in named] == [answer["labels"] for answer in answers]
        expected = [list(answer["probabilities"].values()) for answer in answers]
        np.testing.assert_allclose(served["probabilities"], expected, atol=1e-5)

    def test_export_answers_as_its_readme_says(self, workdir):
        check_readme(workdir, ["text"])

    def test_the_most_probable_label_is_explained(self, workdir):
        for answer in predict(workdir, ["good film", "long plot"], explain=True):
            probabilities, explanation = answer["probabilities"], answer["explanation"]
            assert probabilities[explanation["label"]] == max(probabilities.values())
            assert 1 / (1 + np.exp(-explanation["score"])) == pytest.approx(max(probabilities.values()), abs=1e-5)

    def test_evaluate_counts_by_label(self, workdir, capsys):
        results = evaluate(workdir)
        assert len(results["test"]["confusion_matrix"]) == 3
        assert "found    missed     wrong" in capsys.readouterr().out

    def test_other_data_is_read_as_the_model_was_trained(self, workdir, tmp_path):
        """In a csv that has one class a row nothing says that there could be several."""
        (tmp_path / "other.csv").write_text('text,label\ngood film,good\nbad film,"bad,film"\n')
        config = settings.load_json(workdir / "config.json")
        config.data.source = str(tmp_path / "other.csv")
        assert evaluate(workdir, config)["test"]["examples"] == 2

    def test_the_card_says_how_good_it_is(self, workdir):
        card = model_card(
            "me/it", settings.load_json(workdir / "config.json"), ["bad", "film", "good"], evaluate(workdir)
        )
        assert "| split | examples | Accuracy | Precision | Recall | F1 | ROC AUC |" in card

    def test_class_weights_are_refused(self, tmp_path, workdir):
        config = config_of(str(workdir.parent / "data.jsonl"))
        config.train.class_weights = ClassWeights.BALANCED
        with pytest.raises(InputError, match="no class weights for these labels, in train.class_weights"):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestNumbers:
    @pytest.fixture(scope="class")
    @staticmethod
    def workdir(tmp_path_factory):
        folder = tmp_path_factory.mktemp("numbers")
        rows = [{"text": text, "stars": text.count("good") + 0.5} for text in texts(200, words=3)]
        config = config_of(write(folder / "data.jsonl", rows), label_column="stars")
        config.model.problem_type = ProblemType.REGRESSION
        train(config, folder / "run")
        export(folder / "run")
        return folder / "run"

    def test_learns(self, workdir):
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        validation = [line for line in lines if line["split"] == "validation"]
        assert validation[-1]["loss"] < validation[0]["loss"]

    def test_export_answers_as_predict(self, workdir):
        answers = list(predict(workdir, ["good good good", "bad"]))
        assert [set(answer) for answer in answers] == [{"text", "score"}] * 2
        served = asked(workdir, {"text": ["good good good", "bad"]})
        assert set(served) == {"score"}
        np.testing.assert_allclose(served["score"], [answer["score"] for answer in answers], atol=1e-5)

    def test_export_answers_as_its_readme_says(self, workdir):
        check_readme(workdir, ["text"])

    def test_evaluate(self, workdir, capsys):
        results = evaluate(workdir)
        assert {"pearson", "spearman", "mean_absolute_error", "loss"} <= set(results["test"])
        assert "loss: the mean squared error" in capsys.readouterr().out

    def test_the_card_says_how_good_it_is(self, workdir):
        card = model_card("me/it", settings.load_json(workdir / "config.json"), ["score"], evaluate(workdir))
        assert "| Pearson correlation | Spearman correlation | Mean absolute error |" in card

    def test_the_number_is_explained(self, workdir):
        (answer,) = predict(workdir, ["good good good"], explain=True)
        assert answer["explanation"]["label"] == "score"
        assert answer["explanation"]["score"] == pytest.approx(answer["score"], abs=1e-5)

    def test_fractions_are_no_classes(self, tmp_path, workdir):
        config = config_of(str(workdir.parent / "data.jsonl"), label_column="stars")
        with pytest.raises(InputError, match="--config.model.problem_type=regression"):
            train(config, tmp_path / "run")


class TestWeights:
    def test_examples_of_weight_zero_count_nothing(self, tmp_path):
        """Their labels say the opposite of all others."""
        rows = [{"text": text, "label": "a", "w": 1} for text in texts(80, words=2)]
        rows += [{"text": text + " x", "label": "b", "w": 0.0} for text in texts(160, words=2)]
        train(config_of(write(tmp_path / "data.jsonl", rows), weight_column="w"), tmp_path / "run")
        assert {answer["label"] for answer in predict(tmp_path / "run", texts(20, words=2))} == {"a"}

    def test_balanced_classes_weigh_the_same_together(self):
        config = config_of("data.jsonl")
        config.train.class_weights = ClassWeights.BALANCED
        examples = TokenizedExamples.from_lists([[2, 3]] * 5, [0, 0, 0, 0, 1], weights=[1, 1, 2, 0, 4])
        weights = fit.weighted(examples, config, 2).weights
        assert weights.mean() == pytest.approx(1)
        np.testing.assert_allclose(weights / weights[0], [1, 1, 2, 0, 4 * 4], rtol=1e-6)

    def test_a_small_batch_keeps_its_weight(self):
        """Divided by the weights of each batch, an example alone in its batch would count like any other."""
        examples = TokenizedExamples.from_lists([[2, 3], [2, 3]], [0, 1], weights=[1, 3])
        order = BatchOrder(np.array([0, 1]), np.array([0, 1, 2]), np.array([2, 2]))
        weights = [w.tolist() for *_, w in batches(fit.weighted(examples, config_of(""), 2), order).as_numpy_iterator()]
        assert weights == [[0.5], [1.5]]

    def test_nothing_but_zeros_is_refused(self):
        examples = TokenizedExamples.from_lists([[2, 3]], [0], weights=[0])
        with pytest.raises(InputError, match="all examples weigh nothing, in data.weight_column"):
            fit.weighted(examples, config_of(""), 2)

    def test_other_data_is_evaluated_without_weights(self, tmp_path):
        rows = [{"text": text, "label": "ab"[i % 2], "w": 1} for i, text in enumerate(texts(60, words=2))]
        train(config_of(write(tmp_path / "data.jsonl", rows), weight_column="w"), tmp_path / "run")
        config = settings.load_json(tmp_path / "run" / "config.json")
        config.data.source = write(tmp_path / "other.jsonl", [{"text": "good", "label": "a"}] * 3)
        assert evaluate(tmp_path / "run", config)["test"]["examples"] == 3
        config.data.source, config.data.max_examples = str(tmp_path / "data.jsonl"), 2
        assert evaluate(tmp_path / "run", config)["test"]["examples"] == 2


def test_batches_by_budget_and_in_few_shapes(tmp_path):
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(texts(120, 2))]
    config = config_of(write(tmp_path / "data.jsonl", rows))
    config.train.batch_tokens, config.train.num_shapes, config.train.epochs = 200, 2, 1
    best = train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == best["step"] == 8
    assert evaluate(tmp_path / "run")["validation"]["loss"] == pytest.approx(best["validation"]["loss"], abs=0.02)


def test_rows_that_fill_a_shape_change_no_weight():
    """A step on three texts, and the same step with two rows beside them that stand for no example."""
    examples = TokenizedExamples.from_lists([[2, 7, 8, 3], [2, 9, 3], [2, 5, 6, 3]], [0, 1, 1], weights=[1, 0.5, 2])
    plain = BatchOrder(np.array([0, 1, 2]), np.array([0, 3]), np.array([4]))
    filled = BatchOrder(np.array([0, PADDING, 1, 2, PADDING]), np.array([0, 5]), np.array([8]))
    stepped = []
    for order in (plain, filled):
        keras.utils.set_random_seed(0)
        model = TFBertForSequenceClassification(
            BertArchitecture(
                vocab_size=20,
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        model.compile(keras.optimizers.SGD(1.0), model.default_loss(), weighted_metrics=["accuracy"], jit_compile=False)
        model.fit(batches(examples, order), shuffle=False, verbose=0)
        stepped.append(model.get_weights())
    for one, other in zip(*stepped, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
