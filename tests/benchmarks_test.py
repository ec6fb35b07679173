import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """benchmarks/ is no package: its files are scripts beside each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))


class TestProtocol:
    def test_any_beginning_of_the_spread_order_speaks_for_the_epoch(self):
        from protocol import spread_order

        widths = np.random.default_rng(0).integers(10, 512, 200)
        order = spread_order(widths)
        assert sorted(order) == list(range(200))
        for batches, error in ((8, 0.08), (20, 0.06), (50, 0.02)):
            assert abs(widths[order[:batches]].mean() / widths.mean() - 1) < error

    def test_evenly_takes_from_the_shortest_to_the_longest(self):
        from protocol import evenly

        texts = ["a" * length for length in (9, 1, 5, 3, 7, 2, 8, 4, 6)]
        assert [len(text) for text in evenly(texts, 3)] == [2, 5, 8]
        assert len(evenly(texts, 100)) == 9

    def test_scores_of_logits(self):
        from protocol import scores

        found = scores(np.array([[0.0, 0.0], [1000.0, 0.0]]), [1, 0])
        assert found["loss"] == pytest.approx(np.log(2) / 2)
        assert found["accuracy"] == 0.5  # of equal logits the first is the answer

    def test_the_rate_does_not_depend_on_which_batches_were_measured(self, monkeypatch):
        import protocol

        job = protocol.Job(
            **dict.fromkeys(["train", "validation", "checkpoint", "precision"], ""),
            **{"max_length": 8, "batch_size": 2, "learning_rate": 0.1, "epochs": 1, "seed": 0},
            measure="speed",
            spawned=0.0,
            unmeasured_steps=1,
            seconds=3,
        )
        clock = protocol.StepClock(job, rows=[2, 2, 2, 1], widths=[5, 10, 30, 5])
        seconds = iter([100.0, 101.0, 104.0])
        monkeypatch.setattr(protocol.time, "time", lambda: next(seconds))
        assert [clock.step_done() for _ in range(3)] == [False, False, True]
        speed = clock.speed()
        assert clock.first_step_s == 100.0
        assert (speed["measured_steps"], speed["measured_examples"], speed["measured_seconds"]) == (2, 4, 4.0)
        assert speed["examples_per_second"] == pytest.approx(80 / 4 / (95 / 7))  # tokens a second, over tokens a text


def run_ours(job, folder):
    texts = ["a good film", "a dull plot and a very bad cast", "great cast", "not good , not bad"] * 3
    rows = [json.dumps({"text": text, "label": i % 2}) for i, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    settings = {
        "train": str(folder / "rows.jsonl"),
        "validation": str(folder / "rows.jsonl"),
        "max_length": 8,
        "batch_size": 2,
        "precision": "float32",
        "learning_rate": 1e-3,
        "epochs": 2,
        "seed": 1,
        "spawned": time.time(),
        **job,
    }
    (folder / "job.json").write_text(json.dumps(settings))
    command = [sys.executable, str(BENCHMARKS / "peers" / "ours.py"), str(folder / "job.json")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class TestOurs:
    def test_speed(self, tiny_checkpoint, tmp_path):
        result = run_ours(
            {"measure": "speed", "checkpoint": str(tiny_checkpoint), "seconds": 60, "unmeasured_steps": 2}, tmp_path
        )
        assert result["measured_steps"] == 4  # all of the epoch but the first two
        assert result["measured_examples"] == 8
        for name in ("first_step_s", "examples_per_second", "evaluated_per_second", "tokenised_per_second", "loss"):
            assert result[name] > 0, name
        assert result["peak_bytes"] > 2**20

    @pytest.mark.slow
    def test_accuracy(self, tiny_checkpoint, tmp_path):
        result = run_ours({"measure": "accuracy", "checkpoint": str(tiny_checkpoint)}, tmp_path)
        assert len(result["validations"]) == 2
        assert result["validation_loss"] == result["validations"][-1]["loss"]


class TestCompare:
    def test_what_is_stored_is_not_run_again(self):
        from compare import is_done

        def line(peer, round_number, result):
            return {"measurement": "long", "peer": peer, "round": round_number, "result": result}

        lines = [line("ours", 0, {"step_ms": 9.0}), line("broken", 0, {"error": "no"})]
        assert is_done(lines, "long", "ours", 0)
        assert not is_done(lines, "long", "ours", 1)
        assert is_done(lines, "long", "broken", 1)
        assert not is_done(lines, "reviews", "broken", 0)

    def test_every_job_is_one_that_peers_can_read(self):
        from compare import MEASUREMENTS, PEERS, settings_of
        from protocol import Job

        for measurement in MEASUREMENTS.values():
            for peer in PEERS:
                settings = settings_of(peer, measurement, round_number=0, quick=False)
                Job(**settings, spawned=0.0)


def stored(measurement, peer, round_number, result, **job):
    return {
        "measurement": measurement,
        "peer": peer,
        "round": round_number,
        "date": "2026-11-01",
        "hardware": "a processor, 2 cores",
        "versions": {"torch": "1.0"},
        "job": job,
        "result": result,
    }


class TestReport:
    def test_ratios_are_taken_within_a_round(self):
        from report import document

        # The machine was twice as slow in the second round.
        lines = [
            stored("reviews", peer, i, {"examples_per_second": rate / (i + 1)})
            for i in range(2)
            for peer, rate in (("ours", 80.0), ("pytorch_tuned", 40.0))
        ]
        page = document(lines)
        assert "| PyTorch, tuned | 30 (20 to 40) | 2.00 (2.00 to 2.00) | 2 |" in page
        assert "a processor, 2 cores. 2026-11-01." in page
        assert "- PyTorch, tuned: torch 1.0" in page

    def test_the_time_to_the_accuracy_that_the_tutorial_ends_with(self):
        from report import document

        def line(peer, *accuracies, seconds):
            each = [{"accuracy": one, "loss": 0.3, "seconds": (i + 1) * seconds} for i, one in enumerate(accuracies)]
            last = {"validation_accuracy": accuracies[-1], "validation_loss": 0.3} if each else {}
            job = {"epochs": 3, "max_length": 96}
            return stored("accuracy", peer, 0, {"validations": each, **last}, **job)

        lines = [
            line("ours", 0.8, 0.86, 0.87, seconds=30),
            line("trainer_tutorial", 0.8, 0.84, 0.85, seconds=100),
            line("pytorch_tuned", 0.7, 0.8, 0.84, seconds=60),
            line("keras_hub_tuned", seconds=60),
            stored("accuracy", "old_tf_class", 0, {"error": "its environment could not be installed"}),
        ]
        page = document(lines)
        assert "| tf_finetune | 60 |  | 1 |" in page
        assert "| PyTorch, tutorial | 300 | 5.00 | 1 |" in page
        assert "| PyTorch, tuned | not reached: 0.8400 at best | | |" in page
        assert "| keras-hub, tuned | no epoch ended | | |" in page
        assert "| old TF class | left out: its environment could not be installed | | |" in page
        assert "| tf_finetune | 0.300 | 0.8700 | 1 |" in page

    def test_the_share_of_the_matrix_rate(self):
        from report import MINILM, document

        from tf_finetune.bert.flops import step_flops

        flops = step_flops(MINILM, batch_size=16, length=128)
        lines = [
            stored("one_step", "ours", 0, {"step_ms": 500.0}),
            stored("one_step", "rate_pytorch", 0, {"flops_per_second": 4.0 * flops}),
            stored("one_step", "rate_tensorflow", 0, {"flops_per_second": 3.0 * flops}),
        ]
        assert "| tf_finetune | 50% |" in document(lines)

    def test_writes_the_page_and_the_plot(self, tmp_path):
        pytest.importorskip("matplotlib")
        lines = [
            stored("reviews", "ours", 0, {"examples_per_second": 80.0}),
            stored("reviews", "pytorch_tuned", 0, {"examples_per_second": 40.0}),
        ]
        (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
        command = [sys.executable, str(BENCHMARKS / "report.py"), str(tmp_path / "lines.jsonl"), str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        assert "2.00" in (tmp_path / "results.md").read_text()
        assert (tmp_path / "results.svg").stat().st_size > 1000


class TestRecipes:
    def test_each_part_is_a_config_that_can_be_trained(self):
        from recipes import CONFIG, PARTS, flags

        from tf_finetune import command_flags, settings

        assert len(PARTS) > 10
        for name, part in PARTS.items():
            argv = ["tf-finetune", "train", f"--config={CONFIG}", *flags(part, seed=7)]
            values = command_flags.define(argv)
            values(argv)
            config = settings.validated(values.config)
            assert config.runtime.seed == 7
            for field, value in part.items():
                assert settings.plain(dict(settings.fields(config))[field]) == value, name

    def test_the_screening_is_balanced(self):
        """Any part is there in half of the recipes, and any two are together in a quarter of them."""
        from recipes import SCREENED, design

        recipes = [set(recipe.split("+")) for recipe in design()]
        assert len(recipes) == 8
        assert {"plain"} in recipes
        for one, other in itertools.combinations(SCREENED, 2):
            assert sum(one in recipe for recipe in recipes) == sum(other in recipe for recipe in recipes) == 4
            assert sum({one, other} <= recipe for recipe in recipes) == 2

    def test_the_effect_of_a_part(self):
        from recipes import SCREENED, design, effect

        worth = {"plain": 0.0} | {part: 2.0**number for number, part in enumerate(SCREENED)}
        runs = {recipe: {"is": sum(worth[part] for part in recipe.split("+"))} for recipe in design()}
        for part in SCREENED:
            assert effect(part, runs, lambda one: one["is"]) == worth[part]

    def test_a_row(self):
        from recipes import row

        plain = [
            {"validation": {"accuracy": a, "loss": 0.3}, "seconds": s, "peak_bytes": 2**30, "trained": 22_700_000}
            for a, s in ((0.87, 10.0), (0.88, 12.0), (0.86, None))
        ]
        better = [one | {"validation": {"accuracy": 0.88, "loss": 0.2}, "trained": 500_000} for one in plain[:1]]
        assert row("plain", plain, plain) == "| plain | 87.00 | 1.00 | +0.00 | 0.3000 | 11 | 1.00 | 22.70 |"
        assert row("lora", better, plain) == "| lora | 88.00 | - | +1.00 | 0.2000 | 10 | 1.00 | 0.50 |"


def test_the_page_on_scale_is_what_the_model_says(capsys):
    import scale

    scale.main()
    page = (BENCHMARKS / "SCALE.md").read_text(encoding="utf-8").splitlines()
    told = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(told) > 10
    assert [line for line in page if line in told] == told
