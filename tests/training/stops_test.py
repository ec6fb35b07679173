import os
import signal
import threading
import time

import pytest

from tf_finetune.errors import Interrupted
from tf_finetune.training.stops import AGREE_EVERY, ECHO, SIGNALS, Stops


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A shell's background job, such as these tests may be in, ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_training_a_signal_ends_the_run_where_it_is(number):
    expected = f"interrupted by {signal.Signals(number).name} outside of training"
    with pytest.raises(Interrupted, match=expected), Stops().watched():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_in_training_it_is_taken_down(number, capfd):
    stops = Stops()
    with stops.watched(), stops.deferred():
        stops.check("here")
        os.kill(os.getpid(), number)
        assert stops.asked_by == signal.Signals(number).name
        time.sleep(0.2)  # for the thread, which answers by itself
        with pytest.raises(Interrupted, match=f"interrupted by {stops.asked_by} at step 3; the same command goes on"):
            stops.check("at step 3")
    again = "; another Ctrl-C leaves at once" if number == signal.SIGINT else ""
    expected = f"{signal.Signals(number).name}: stopping after this step, to save{again}\n"
    assert capfd.readouterr().err == expected


def test_sigterm_may_come_twice(capfd):
    stops = Stops()
    with stops.watched(), stops.deferred():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert stops.asked_by == "SIGINT"


def test_the_signals_are_given_back():
    before, threads_before = [signal.getsignal(number) for number in SIGNALS], threading.active_count()
    with Stops().watched():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads_before


def test_what_is_ignored_stays_ignored():
    """As Ctrl-C is by a shell's background job."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stops().watched():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_a_notebook_a_second_control_c_raises_and_leaves_the_process():
    stops = Stops()
    again = pytest.raises(
        Interrupted, match="interrupted again, at once; the same command goes on from the last checkpoint"
    )
    with again, stops.watched(), stops.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(2 * ECHO)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("is_process", [False, True])
def test_a_control_c_that_comes_twice_at_once_is_one(is_process):
    stops = Stops(is_process=is_process)
    with stops.watched(), stops.deferred():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
    assert stops.asked_by == "SIGINT"


def test_another_thread_leaves_the_signals_alone():
    seen = []

    def run():
        with Stops().watched():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.parametrize(
    ("is_begun", "way_on"),
    [
        (False, "the earlier run is as it was, and the same command begins anew"),
        (True, "the same command without --restart goes on"),
    ],
)
def test_how_a_run_that_replaces_another_is_gone_on_with(is_begun, way_on):
    stops = Stops(replaces=True)
    with stops.watched(), stops.deferred():
        stops.is_begun = is_begun
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match=f"interrupted by SIGTERM here; {way_on}$"):
            stops.check("here")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_a_forked_process_is_not_the_runs(number, capfd):
    stops = Stops()
    reader, writer = os.pipe()
    with stops.watched(), stops.deferred():
        pid = os.fork()
        if not pid:
            try:
                os.write(writer, b"\0")
                time.sleep(60)
            finally:  # SIGINT raises
                os._exit(3)
        os.read(reader, 1)
        os.kill(pid, number)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.2)
    os.close(reader), os.close(writer)
    assert status == (3 if number == signal.SIGINT else -signal.SIGTERM)
    assert stops.asked_by is None
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_ended_while_it_is_being_forked_does_not_end_the_run(capfd):
    stops = Stops()
    with stops.watched(), stops.deferred():
        for _ in range(5):
            pid = os.fork()
            if not pid:
                time.sleep(10)
                os._exit(3)
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        time.sleep(0.2)
    assert stops.asked_by is None
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_that_lives_on_does_not_hold_the_run_up():
    began = time.monotonic()
    with Stops().watched():
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
    try:
        assert time.monotonic() - began < 10
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class TestSeveralProcesses:
    """Two runs that stop at each other's words, taken one after the other."""

    def both(self, *stops, is_due=(False, False), now=False):
        """What both are answered; what the first says is known when the second has been asked."""
        said = []
        for one in stops:
            one._agree = lambda word: said.append(word) or ""
        for one, due in zip(stops, is_due, strict=True):
            one.ask(due, now=now)
            one._asks -= 1
        for one in stops:
            one._agree = lambda word: next(filter(None, said), "")
        return [one.ask(due, now=now) for one, due in zip(stops, is_due, strict=True)]

    def test_a_signal_to_one_stops_both_at_the_same_step(self):
        first, second = Stops(agree=str), Stops(agree=str)
        answers = []
        with second.watched(), second.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert second.asked_by is None  # a process that left alone would leave the other waiting
            second.check("here")
            answers = [self.both(first, second) for _ in range(AGREE_EVERY)]
            assert answers == [[False, False]] * (AGREE_EVERY - 1) + [[True, True]]
            assert first.asked_by == second.asked_by == "SIGTERM"
            with pytest.raises(Interrupted, match="interrupted by SIGTERM at step 8"):
                second.check("at step 8")

    def test_a_pause_for_another_reason_is_no_signal(self):
        first, second = Stops(agree=str), Stops(agree=str)
        assert self.both(first, second, is_due=(True, False), now=True) == [True, True]
        assert first.asked_by is second.asked_by is None

    def test_before_training_each_leaves_by_itself(self):
        with pytest.raises(Interrupted, match="SIGTERM outside of training"), Stops(agree=str).watched():
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_alone_is_answered_at_each_call():
    stops = Stops()
    assert not stops.ask()
    assert stops.ask(True)
    with stops.watched(), stops.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops.ask()
