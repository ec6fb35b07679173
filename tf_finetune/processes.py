"""The processes that train one model together, on one machine or on many: what they agree on, and what the others do
when one is lost. All of it is trivial with one process, and nothing of it imports JAX then.

JAX's coordination service in process 0 carries it. It is asked through a module of JAX's own, as the libraries of
checkpoints do that are built on JAX: there is no public way to it.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tf_finetune import runtime
from tf_finetune.errors import INTERRUPTED_STATUS, InputError, Interrupted, RunError
from tf_finetune.process_environment import ADDRESSES, INDEX, Place

# Seconds that a process waits for the others to come; machines do not start at the same moment.
JOIN_SECONDS = 300.0
# Seconds between two signs of life, and without one after which a process is lost. JAX's own measure is longer, and
# ends all of them without a word of ours.
BEAT, LOST_AFTER, LOST_TO_JAX = 5.0, 40.0, 100
# Seconds that process 0 stays when another one is lost: JAX ends whoever finds it gone.
STAY = 3.0
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy")
# What the libraries say when another process is gone: of gloo between CPUs, NCCL between GPUs, and the service.
SIGNS = ("gloo", "nccl", "unavailable", "deadline_exceeded", "coordination", "socket closed", "connection reset")


_place = Place()
_exchanges = itertools.count()
_works = itertools.count()
_is_broken = False
_answer = None


def index() -> int:
    """Of this process, from 0; process 0 is the one that writes and speaks."""
    return _place.index


def count() -> int:
    """How many processes train together."""
    return _place.count


def is_writer() -> bool:
    """Whether this process is the one that writes."""
    return _place.index == 0


def join(place: Place, *, seconds: float = JOIN_SECONDS) -> None:
    """Finds the other processes; before JAX is used. Does nothing with one process.

    Raises:
        InputError: JAX has begun.
        RunError: the others did not come in time.
    """
    global _place
    if place.count == 1 or _place.count > 1:
        return
    import jax

    if place.index == 0:
        print(f"process 0 of {place.count}: waiting for the others at {place.coordinator}", flush=True)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX warns of each variable with "proxy" in its name, of those that name what goes without one as well.
    jax.config.update("jax_check_proxy_envs", any(name.lower() in PROXIES for name in os.environ))
    failed: list[Exception] = []

    def meet():
        try:  # JAX's own limit of time would end the process without a word of ours
            others = {"num_processes": place.count, "process_id": place.index}
            times = {"initialization_timeout": 10**5, "heartbeat_timeout_seconds": LOST_TO_JAX}
            jax.distributed.initialize(place.coordinator, **others, **times)
        except Exception as error:  # to be raised where the signals are answered
            failed.append(error)

    if not jax.distributed.is_initialized():
        _in_a_thread(meet, place, seconds)
    if failed:
        raise RunError(f"the processes of this run did not meet at {place.coordinator}: {failed[0]}") from failed[0]
    _place = place
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX has taken it for itself


def _in_a_thread(meet: Callable[[], None], place: Place, seconds: float) -> None:
    """So that Ctrl-C is answered meanwhile."""
    global _is_broken
    thread = threading.Thread(target=meet, daemon=True)
    thread.start()
    until = time.monotonic() + seconds
    while thread.is_alive():
        if time.monotonic() > until:
            _is_broken = True
            missing = f"process 0 did not answer at {place.coordinator}"
            if place.index == 0:
                missing = f"not all of the other {place.count - 1} came to {place.coordinator}"
            raise RunError(
                f"the processes of this run did not meet within {seconds:.0f} s: {missing}; each is to be started with "
                f"the same {ADDRESSES}, that of process 0 as the others reach it, and its own {INDEX}"
            )
        thread.join(0.1)


def connect() -> None:
    """Computes something together, so that whoever cannot be reached is known before the work.

    Raises:
        InputError: the processes have different numbers of devices.
    """
    if count() == 1:
        return
    import jax
    from jax.experimental import multihost_utils

    same("the number of devices", str(jax.local_device_count()), expected="as many in each process")
    with runtime.quietly(streams=(1, 2)):  # gloo says whom it has found
        multihost_utils.sync_global_devices("tf_finetune")


def exchanged(word: str) -> list[str]:
    """What each process says here, in their order; waits for all of them. Each has to come here as often as the others.

    Raises:
        Interrupted: one of them is lost.
    """
    if count() == 1:
        return [word]
    client, number = _client(), next(_exchanges)
    client.key_value_set(f"tf_finetune/{number}/{index()}", word)
    words = [_read(client, f"tf_finetune/{number}/{other}") for other in range(count())]
    if number:  # everybody has read it who is here
        client.key_value_delete(f"tf_finetune/{number - 1}/{index()}")
    return words


def _read(client, key: str) -> str:
    while True:  # a second at a time, so that signals are answered
        try:
            return client.blocking_key_value_get(key, 1000)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def agreed(word: str = "") -> str:
    """The first word that is not empty, of all processes in their order; waits for all of them."""
    return next(filter(None, exchanged(word)), "")


def meet() -> None:
    """Waits for all processes."""
    exchanged("")


def same(what: str, value: str, *, expected: str) -> None:
    """Makes sure that all processes have the same.

    Raises:
        InputError: one has another, in every process.
    """
    values = exchanged(value)
    other = next((place for place, one in enumerate(values) if one != values[0]), None)
    if other is not None:
        got = f"{values[0]!r} in process 0 and {values[other]!r} in process {other}"
        raise InputError(f"the processes of this run differ in {what}", expected=expected, got=got)


@contextlib.contextmanager
def at_work(way_on: Callable[[], str]) -> Iterator[None]:
    """Inside, process 0 alone prints, and each says and ends when another one is lost. With one process there is
    nothing to it.

    Args:
        way_on: the words for what is kept then, and how to go on.

    Raises:
        Interrupted: another one is lost. A process that waits for it in vain, as GPUs do, is left at once, with the
            status of that.
    """
    global _is_broken
    if count() == 1:
        yield
        return
    _is_broken = False
    watch = _Watch(way_on)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(sys.stdout if is_writer() else nowhere):
            yield
            meet()
    except BaseException as error:
        _is_broken = True  # the others are not waited for: they end by the same, or are told
        watch.end()
        if _is_of_another(error):
            runtime.warn(str(error).strip().splitlines()[0])
            raise Interrupted(watch.words()) from error
        watch.tell()
        raise
    watch.end().join()
    _on_abort(None)
    os.close(watch.screen)


def _is_of_another(error: BaseException) -> bool:
    """Whether JAX says that another process is gone; a hub that cannot be reached is another matter."""
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


class _Watch:
    """A thread that exchanges signs of life with the other processes, and ends this one where there are none.

    Collectives of CPUs fail by themselves when a process is gone; those of GPUs wait. Where process 0 is gone, JAX
    aborts the others: that signal is answered, too, and not by Python's own way, which would come to it after the end.
    """

    def __init__(self, way_on: Callable[[], str]):
        self.way_on, self.client, self.name = way_on, _client(), f"tf_finetune/work/{next(_works)}"
        self.is_over, self.speaks = threading.Event(), threading.Lock()
        self.screen = os.dup(2)  # `quietly` may have turned the other away when there is something to say
        _on_abort(self._leave_or_return)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def end(self) -> threading.Thread:
        """Ends it, soon, in all processes that call this; without a word from now on."""
        self.speaks.acquire(blocking=False)
        self.is_over.set()
        return self.thread

    def tell(self) -> None:
        """Lets the others know at their next sign of life that this process ends."""
        with contextlib.suppress(Exception):
            self.client.key_value_set(f"{self.name}/gone/{index()}", "yes")

    def words(self) -> str:
        return f"a process of this run ended or was lost, and says itself why if it could; {self.way_on()}"

    def _run(self) -> None:
        try:
            while not self._is_last():
                self.client.wait_at_barrier(f"{self.name}/alive", round(1000 * LOST_AFTER))
        except Exception:
            if self.speaks.acquire(blocking=False):
                os.write(self.screen, f"{self.words()}\n".encode())
                _leave(INTERRUPTED_STATUS)

    def _leave_or_return(self, number: int) -> None:
        if _is_process_0_there():
            return  # it is a mistake of another kind, and the process ends by it
        if self.speaks.acquire(blocking=False):
            os.write(self.screen, f"{self.words()}\n".encode())
        else:  # whoever speaks comes to the end
            time.sleep(STAY)
        os._exit(INTERRUPTED_STATUS)

    def _is_last(self) -> bool:
        """Whether it was the last sign of life. Process 0 sets the pace: the others wait within the barrier, and so
        learn at once that it is gone."""
        if not is_writer():
            return bool(self.client.key_value_dir_get(f"{self.name}/over"))
        if self.is_over.wait(BEAT):
            self.client.key_value_set(f"{self.name}/over/yes", "yes")
            self.client.wait_at_barrier(f"{self.name}/alive", round(1000 * LOST_AFTER))
        elif self.client.key_value_dir_get(f"{self.name}/gone"):
            raise RunError("one is gone")
        return self.is_over.is_set()


def end(status: int) -> None:
    """What is left to do of a process whose exit status is this: all leave JAX together or, where one of them came to
    nothing, at once."""
    if _is_broken:
        _leave(status)
    if count() > 1:
        import jax

        jax.distributed.shutdown()


def _leave(status: int) -> None:
    """Ends the process without what libraries do at its end: they would wait for the others."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if is_writer() and count() > 1:
        time.sleep(STAY)
    os._exit(status)


def _on_abort(answer: Callable[[int], None] | None) -> None:
    """Calls the function within an abort, in whichever thread; None: nothing any more."""
    global _answer
    _answer = answer and ctypes.CFUNCTYPE(None, ctypes.c_int)(answer)  # C has its address alone
    take = ctypes.CDLL(None).signal
    take.argtypes, take.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    take(signal.SIGABRT, ctypes.cast(_answer, ctypes.c_void_p) if _answer else None)


def _is_process_0_there() -> bool:
    """Asked past JAX, which holds its locks while it aborts."""
    host, _, port = _place.coordinator.rpartition(":")
    for _ in range(5):  # a process that is being killed may answer for a moment
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError:
            return False
        time.sleep(0.2)
    return True


def _client():
    from jax._src import distributed

    return distributed.global_state.client
