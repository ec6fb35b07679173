"""Free memory as the files of a made-up machine tell it."""

import types

import pytest
import tensorflow as tf

from tf_finetune.training import free_memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path):
    """Files of one with 8 GiB available, in no control group."""
    return Machine(tmp_path)


class Machine:
    def __init__(self, root):
        self.root = root
        self.write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:   8388608 kB\n")

    def write(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def group(self, folder, *, limit, use, version=2, inactive=0):
        folder = f"sys/fs/cgroup/{'memory/' if version == 1 else ''}{folder}"
        names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}
        most, used, field = names.get(version, ("memory.max", "memory.current", "inactive_file"))
        self.write(f"{folder}/{most}", f"{limit}\n")
        self.write(f"{folder}/{used}", f"{use}\n")
        self.write(f"{folder}/memory.stat", f"anon 5\n{field} {inactive}\n")

    def free(self):
        return free_memory.of_machine(self.root)


def test_what_the_kernel_calls_available(machine):
    assert machine.free() == 8 * GIB


def test_nobody_says_outside_linux(tmp_path):
    assert free_memory.of_machine(tmp_path) is None


@pytest.mark.parametrize("text", ["", "MemFree: 5 kB\n", "MemAvailable: many kB\n"])
def test_nor_does_a_file_without_the_line(machine, text):
    machine.write("proc/meminfo", text)
    assert machine.free() is None


def test_a_group_allows_less(machine):
    machine.write("proc/self/cgroup", "0::/user/job\n")
    machine.group("user/job", limit=4 * GIB, use=3 * GIB, inactive=GIB // 2)
    assert machine.free() == 1.5 * GIB


def test_so_may_the_one_around_it(machine):
    machine.write("proc/self/cgroup", "0::/user/job\n")
    machine.group("user/job", limit="max", use=GIB)
    machine.group("user", limit=3 * GIB, use=GIB)
    assert machine.free() == 2 * GIB


def test_in_a_container_the_group_is_the_mount(machine):
    machine.write("proc/self/cgroup", "0::/\n")
    machine.group("", limit=2 * GIB, use=GIB)
    assert machine.free() == GIB


def test_a_group_of_the_first_version(machine):
    machine.write("proc/self/cgroup", "8:pids:/\n4:memory:/docker/abc\n0::/\n")
    machine.group("docker/abc", limit=3 * GIB, use=GIB, version=1, inactive=GIB // 4)
    assert machine.free() == 2.25 * GIB


def test_its_path_may_be_the_hosts(machine):
    machine.write("proc/self/cgroup", "4:cpu,memory:/docker/abc\n")
    machine.group("", limit=3 * GIB, use=GIB, version=1)
    assert machine.free() == 2 * GIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_no_limit_is_none(machine, limit):
    machine.write("proc/self/cgroup", "0::/\n")
    machine.group("", limit=limit, use=GIB)
    assert machine.free() == 8 * GIB


def test_a_group_that_is_over_its_limit_allows_nothing(machine):
    machine.write("proc/self/cgroup", "0::/\n")
    machine.group("", limit=GIB, use=2 * GIB)
    assert machine.free() == 0


def test_a_gpu_is_its_allocators_limit_without_what_is_used(monkeypatch):
    devices = [device("CPU", 256), device("GPU", 100 * GIB), device("GPU", 50 * GIB)]
    monkeypatch.setattr(tf.compat.v1.Session, "list_devices", lambda session: devices)
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"current": 3 * GIB, "peak": 4 * GIB})
    assert free_memory.of_gpu() == 97 * GIB


@pytest.mark.parametrize("limit", [0, None])
def test_a_gpu_that_does_not_say(monkeypatch, limit):
    devices = [device("CPU", 256)] if limit is None else [device("GPU", limit)]
    monkeypatch.setattr(tf.compat.v1.Session, "list_devices", lambda session: devices)
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"current": 0})
    assert free_memory.of_gpu() is None


def test_where_there_is_no_gpu_it_is_not_known():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is one")
    assert free_memory.of_gpu() is None


def device(kind, limit):
    return types.SimpleNamespace(device_type=kind, memory_limit_bytes=limit)
