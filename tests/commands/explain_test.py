"""`predict --explain`: from a trained run to what a program reads, and to what whoever sits at a terminal does."""

import io
import json
import re
import sys

import numpy as np
import pytest
from films import three_epochs, write_films
from in_process import tf_finetune

from tf_finetune import cli
from tf_finetune.commands.predict import predict
from tf_finetune.commands.train import train

TEXTS = ["the film was very good", "A dull, dull plot", ""]
HOSTILE = "go\x07od \x1b]0;owned\x07\x1b[31m fi\u202elm\u202c \x9b2J"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, tiny_checkpoint):
    folder = tmp_path_factory.mktemp("explained")
    train(three_epochs(write_films(folder / "films.csv"), tiny_checkpoint), folder / "run")
    return folder / "run"


class TestPredict:
    @pytest.fixture(scope="class")
    @staticmethod
    def answers(workdir):
        return list(predict(workdir, TEXTS, explain=True))

    def test_answers_are_those_of_predict(self, workdir, answers):
        plain = [{name: value for name, value in answer.items() if name != "explanation"} for answer in answers]
        assert plain == list(predict(workdir, TEXTS))

    def test_the_label_of_the_answer_is_explained(self, answers):
        for answer in answers:
            assert answer["explanation"]["label"] == answer["label"]
            odds = answer["score"] / (1 - answer["score"])
            assert answer["explanation"]["score"] == pytest.approx(np.log(odds), abs=1e-4)

    def test_tokens_add_up_to_what_the_text_changes(self, answers):
        for answer in answers:
            explanation = answer["explanation"]
            total = sum(token["attribution"] for token in explanation["tokens"])
            change = explanation["score"] - explanation["baseline_score"]
            assert explanation["completeness_error"] < 0.01
            assert total == pytest.approx(change, rel=0.011)

    def test_tokens_are_pieces_of_the_text(self, answers):
        for answer, text in zip(answers, TEXTS, strict=True):
            for token in answer["explanation"]["tokens"]:
                assert text[token["start"] : token["end"]] == token["piece"]
        assert [token["piece"] for token in answers[1]["explanation"]["tokens"]] == ["A", "dull", ",", "dull", "plot"]

    def test_the_command_prints_them_as_json_lines_alone(self, workdir, answers):
        result = tf_finetune("predict", f"--workdir={workdir}", "--explain", *TEXTS)
        assert result.returncode == 0
        assert [json.loads(line) for line in result.stdout.splitlines()] == json.loads(json.dumps(answers))
        assert "completeness" not in result.stderr


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


class TestAtATerminal:
    def said(self, workdir, monkeypatch, *texts, environment):
        """What comes out and what is shown."""
        out, shown = io.TextIOWrapper(io.BytesIO(), "utf-8"), Terminal(io.BytesIO(), "utf-8", write_through=True)
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", shown)
        assert cli.main(["tf-finetune", "predict", f"--workdir={workdir}", "--explain", *texts]) == 0
        out.flush()
        return out.buffer.getvalue().decode(), shown.buffer.getvalue().decode()

    def test_a_block_a_text(self, workdir, monkeypatch):
        out, shown = self.said(workdir, monkeypatch, *TEXTS[:2], environment={})
        answers = [json.loads(line) for line in out.splitlines()]
        assert re.findall(r"^why (\w+): score", shown, flags=re.MULTILINE) == [answer["label"] for answer in answers]
        assert len(re.findall(r"^completeness error 0\.\d\d% \(\d+ steps\)$", shown, flags=re.MULTILINE)) == 2
        assert "\x1b[3" in shown

    @pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_without_colour(self, workdir, monkeypatch, environment):
        _, shown = self.said(workdir, monkeypatch, TEXTS[0], environment=environment)
        assert "why " in shown
        assert "\x1b" not in shown

    def test_a_text_cannot_speak_to_the_terminal(self, workdir, monkeypatch):
        _, shown = self.said(workdir, monkeypatch, HOSTILE, environment={"NO_COLOR": "1"})
        assert "  go\\x07od ] 0 ;" in shown
        assert "fi\\u202elm" in shown
        assert not set("\x1b\x07\x9b\u202e\u202c") & set(shown)
