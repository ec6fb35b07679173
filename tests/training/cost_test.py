import numpy as np
import pytest

from tf_finetune.training import cost
from tf_finetune.training.cost import CostMeter, EpochWork, duration

# Ten operations a computed token.
WORK = EpochWork(
    examples=np.array([4, 4, 4, 2]),
    tokens=np.array([20, 30, 40, 10]),
    computed_tokens=np.array([40, 40, 40, 16]),
    flops=np.array([400, 400, 400, 160]),
)


class Run:
    """Steps by a clock of our own; a step waits for its batch a quarter of its time."""

    def __init__(self, monkeypatch, **options):
        self.now = self.waited = 0.0
        monkeypatch.setattr(cost.time, "perf_counter", lambda: self.now)
        self.meter = CostMeter(matrix_rate=1000.0, **options)

    def begin(self, epoch):
        self.waited = 0.0
        self.meter.begin_epoch(epoch, WORK, lambda: self.waited)

    def step(self, batch, seconds):
        self.now += seconds
        self.waited += seconds / 4
        self.meter.step_done(batch)


@pytest.fixture
def run(monkeypatch):
    return Run(monkeypatch, epochs=3, seconds_between=5.0)


@pytest.fixture
def after_three_steps(run):
    run.begin(0)
    for batch, seconds in enumerate([100.0, 3.0, 1.0]):
        run.step(batch, seconds)
    return run


def test_the_first_step_counts_as_padding_and_into_no_speed(after_three_steps):
    found = after_three_steps.meter.report(2)
    assert found.padding_share == pytest.approx(30 / 120)
    timing = found.timing
    assert timing["examples_per_second"] == 8 / 4
    assert timing["tokens_per_second"] == 70 / 4
    assert timing["matrix_rate_share"] == pytest.approx(800 / 4 / 1000)
    assert timing["input_wait_share"] == pytest.approx(0.25)


def test_where_nobody_knows_the_wait_nothing_is_said_of_it(run):
    run.meter.begin_epoch(0, WORK, None)
    for batch in range(2):
        run.step(batch, 1.0)
    found = run.meter.report(1)
    assert "input_wait_share" not in found.timing
    assert "waiting" not in found.line()
    assert found.line().startswith("30 tokens/s")


def test_every_report_is_about_the_steps_since_the_last(after_three_steps):
    after_three_steps.meter.report(2)
    after_three_steps.step(3, 0.5)
    found = after_three_steps.meter.report(3)
    assert found.padding_share == pytest.approx(6 / 16)
    assert found.timing["examples_per_second"] == 2 / 0.5
    assert found.timing["tokens_per_second"] == 10 / 0.5
    assert found.timing["matrix_rate_share"] == pytest.approx(160 / 0.5 / 1000)


def test_later_epochs_count_from_their_first_step(after_three_steps):
    after_three_steps.meter.report(2)
    after_three_steps.now += 1000.0  # validation
    after_three_steps.begin(1)
    after_three_steps.step(0, 2.0)
    found = after_three_steps.meter.report(0)
    assert found.timing["examples_per_second"] == 4 / 2
    assert found.timing["input_wait_share"] == pytest.approx(0.25)


def test_time_left_is_that_of_the_run(after_three_steps):
    """800 operations took 4 s; 160 of this epoch and 1360 of each of two more are left, and three validations."""
    found = after_three_steps.meter.report(2)
    assert found.timing["seconds_left"] == pytest.approx((160 + 2 * 1360) * 4 / 800 + 3 * 5)


def test_time_left_goes_by_the_speed_of_all_steps_so_far(after_three_steps):
    after_three_steps.meter.report(2)
    after_three_steps.step(3, 2.0)
    found = after_three_steps.meter.report(3)
    assert found.timing["seconds_left"] == pytest.approx(2 * 1360 * 6 / 960 + 3 * 5)


def test_validation_is_all_that_is_left_after_the_last_step(run):
    run.begin(2)
    for batch in range(4):
        run.step(batch, 1.0)
    assert run.meter.report(3).timing["seconds_left"] == 5.0


def test_the_line(after_three_steps):
    assert after_three_steps.meter.report(2).line() == (
        "18 tokens/s  25.0% padding  20% of the matrix rate  25.0% waiting for input  29 s left"
    )


def test_there_is_no_line_where_no_step_was_measured(run):
    run.begin(0)
    run.step(0, 1.0)
    found = run.meter.report(0)
    assert found.timing == {"examples_per_second": 0.0}
    assert found.line() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words
