"""Two processes on this machine train what one does, and end together."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from films import write_films
from in_process import tf_finetune
from outcomes import records
from safetensors.numpy import load_file

from tf_finetune import command_flags, process_environment, processes, settings
from tf_finetune.config import Backend
from tf_finetune.errors import InputError
from tf_finetune.training import checkpoints
from tf_finetune.training.stops import AGREE_EVERY

ADDRESS = "10.0.0.1:1234"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name.lower() not in processes.PROXIES} | {
    "JAX_PLATFORMS": "cpu"
}


def environment(**values):
    names = dict(zip(("addresses", "count", "index"), process_environment.VARIABLES, strict=True))
    return {names.get(name, name): value for name, value in values.items()}


class TestTheEnvironment:
    def test_without_the_variables_there_is_one(self):
        for backend in ("tensorflow", "jax"):
            assert process_environment.given(backend, {}) == process_environment.Place()

    @pytest.mark.parametrize("addresses", [ADDRESS, f"{ADDRESS},10.0.0.2:1234,10.0.0.3:1234"])
    def test_the_first_address_is_that_of_process_0(self, addresses):
        found = process_environment.given("jax", environment(addresses=addresses, count="3", index="2"))
        assert found == process_environment.Place(ADDRESS, 3, 2)

    def test_one_of_one_is_one_on_any_backend(self):
        assert process_environment.given("tensorflow", environment(addresses=ADDRESS, count="1", index="0")).count == 1

    @pytest.mark.parametrize(
        ("values", "complaint"),
        [
            (
                {"count": "2"},
                "KERAS_DISTRIBUTION_NUM_PROCESSES without KERAS_DISTRIBUTION_JOB_ADDRESSES and "
                "KERAS_DISTRIBUTION_PROCESS_ID, in the environment, expected all or none",
            ),
            (
                {"addresses": ADDRESS, "count": "two", "index": "0"},
                "not a process, in KERAS_DISTRIBUTION_NUM_PROCESSES, expected the number of processes, 1 or more, "
                "got two",
            ),
            (
                {"addresses": ADDRESS, "count": "2", "index": "2"},
                "not a process, in KERAS_DISTRIBUTION_PROCESS_ID, expected a number from 0 to 1, another one in each "
                "process, got 2",
            ),
            (
                {"addresses": f"{ADDRESS},10.0.0.2:1234", "count": "3", "index": "0"},
                "not the addresses, in KERAS_DISTRIBUTION_JOB_ADDRESSES, expected that of process 0, or one for each "
                "of 3 processes, got 2 addresses",
            ),
            (
                {"addresses": "10.0.0.1", "count": "2", "index": "0"},
                "no address, in KERAS_DISTRIBUTION_JOB_ADDRESSES, expected HOST:PORT of process 0, got 10.0.0.1",
            ),
        ],
    )
    def test_half_of_it_is_refused(self, values, complaint):
        with pytest.raises(InputError) as caught:
            process_environment.given("jax", environment(**values))
        assert str(caught.value) == complaint

    def test_several_train_on_jax_alone(self, tmp_path, monkeypatch):
        for name, value in environment(addresses=ADDRESS, count="2", index="0").items():
            monkeypatch.setenv(name, value)
        result = tf_finetune("train", "--config=smoke", f"--workdir={tmp_path / 'run'}")
        assert result.stderr == (
            "error: many processes train on JAX, in KERAS_DISTRIBUTION_NUM_PROCESSES, expected "
            "--config.runtime.backend=jax, or the variable unset, got the tensorflow backend\n"
        )
        assert result.returncode == 2
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        "command", ["sweep", "find-learning-rate", "cross-validate", "check-data", "train --dry_run"]
    )
    def test_what_one_process_does_alone_is_refused(self, command, tmp_path, monkeypatch):
        for name, value in environment(addresses=ADDRESS, count="2", index="0").items():
            monkeypatch.setenv(name, value)
        workdir = () if command == "check-data" else (f"--workdir={tmp_path / 'run'}",)
        result = tf_finetune(*command.split(), "--config=smoke", *workdir)
        assert result.stderr == (
            f"error: {command.split()[-1]} is not for several processes, in the environment, expected "
            f"{', '.join(process_environment.VARIABLES)} unset: it runs in one process, got 2 processes\n"
        )

    @pytest.mark.parametrize("config", ['{"cluster": {"worker": ["a:1", "b:1"]}, "task": {}}', "["])
    def test_tensorflows_own_way_is_refused_by_the_name_of_ours(self, config, monkeypatch, tmp_path):
        monkeypatch.setenv("TF_CONFIG", config)
        result = tf_finetune("train", "--config=smoke", f"--workdir={tmp_path / 'run'}")
        got = "what cannot be read" if config == "[" else "a cluster of 2 tasks"
        assert result.stderr == (
            "error: no training by MultiWorkerMirroredStrategy, in TF_CONFIG, expected it unset; on JAX "
            f"(runtime.backend=jax) {', '.join(process_environment.VARIABLES)} name the processes, got {got}\n"
        )

    def test_a_cluster_of_one_is_none(self):
        assert process_environment.given("jax", {"TF_CONFIG": '{"cluster": {"chief": ["a:1"]}}'}).count == 1


def test_the_readme_names_them_as_they_are():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    [block] = [
        block
        for block in re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)
        if process_environment.INDEX in block
    ]
    *exported, command = block.strip().splitlines()
    variables = dict(line.partition(" #")[0].removeprefix("export ").strip().split("=") for line in exported)
    assert process_environment.given("jax", variables) == process_environment.Place("10.0.0.1:4567", 2, 0)
    values = command_flags.define(shlex.split(command))
    assert values(shlex.split(command))[1:] == ["train"]
    assert settings.validated(values.config).runtime.backend is Backend.JAX
    assert AGREE_EVERY == 8
    assert "at most eight steps later" in readme
    assert f"within\n  {processes.LOST_AFTER + processes.BEAT:.0f} seconds" in readme


def test_with_one_process_there_is_nothing_to_agree_on():
    assert (processes.index(), processes.count(), processes.is_writer()) == (0, 1, True)
    assert processes.agreed("word") == "word"
    processes.same("anything", "this", expected="that")
    processes.end(0)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def started(folder, name, *, index=None, count=2, port=0, flags=""):
    """`python processes_training.py FOLDER NAME`, as one of several processes where there is an index."""
    script = Path(__file__).parent / "processes_training.py"
    there = dict(addresses=f"127.0.0.1:{port}", count=str(count), index=str(index)) if index is not None else {}
    return subprocess.Popen(
        [sys.executable, script, folder, name],
        env=ENVIRONMENT | environment(**there) | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(folder, name):
    """The status of both processes, and what each said, on both streams."""
    port = free_port()
    both = [started(folder, name, index=index, port=port) for index in range(2)]
    said = [process.communicate(timeout=600) for process in both]
    return [process.returncode for process in both], said


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_checkpoint):
    """Where the same was trained by one process and by two, of which one was signalled and then killed; and what the
    two said until then, and when they were started again."""
    folder = tmp_path_factory.mktemp("processes")
    write_films(folder / "films.csv")
    (folder / "checkpoint").symlink_to(tiny_checkpoint)
    interrupted, resumed = together(folder, "interrupted"), together(folder, "to_the_end")
    alone = started(folder, "alone", flags="--xla_force_host_platform_device_count=2")
    said = alone.communicate(timeout=600)
    assert alone.returncode == 0, said[1]
    return folder, interrupted, resumed


def test_a_signal_to_one_stops_both_at_the_same_step(trained):
    _, (_, said), _ = trained
    for _, complained in said:
        assert "INTERRUPTED interrupted by SIGTERM at step 4 of 12, kept in " in complained


def test_when_one_is_killed_the_other_says_what_is_kept_and_ends(trained):
    _, (statuses, said), _ = trained
    assert statuses == [75, -signal.SIGKILL]
    assert said[0][1].endswith(
        "a process of this run ended or was lost, and says itself why if it could; step_00000008 is kept, and training "
        "can go on from it; the same command goes on, in every process\n"
    )
    assert "Traceback" not in said[0][1]


def test_started_again_they_go_on_to_the_end(trained):
    _, _, (statuses, said) = trained
    assert statuses == [0, 0], said
    assert "going on at step 8, in epoch 2" in said[0][0]


def test_one_process_writes_and_prints(trained):
    folder, (_, interrupted), (_, resumed) = trained
    assert interrupted[1][0] == resumed[1][0] == ""
    assert [line for line in resumed[0][0].splitlines() if "Gloo" in line] == []
    steps = [(record["split"], record["step"]) for record in records(folder / "together")]
    assert len(steps) == len(set(steps))
    manifest = json.loads((last(folder / "together") / "manifest.json").read_text())
    assert manifest["surroundings"]["processes"] == manifest["surroundings"]["replicas"] == 2


def last(workdir):
    return checkpoints.all_of(workdir / "checkpoints")[-1]


def test_the_end_is_that_of_one_process_with_two_devices(trained):
    """Dropout included: each row stands in its place of the batch, whichever process made it."""
    together, alone = trained[0] / "together", trained[0] / "alone"
    found, expected = records(together), records(alone)
    assert [record["step"] for record in found] == [record["step"] for record in expected]
    losses, their_losses = ([record["loss"] for record in some] for some in (found, expected))
    np.testing.assert_allclose(losses, their_losses, rtol=0, atol=1e-6)
    assert last(together).name == last(alone).name == "step_00000012"
    weights, their_weights = (load_file(last(one) / "model.safetensors") for one in (together, alone))
    assert weights.keys() == their_weights.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(value, their_weights[name], rtol=0, atol=1e-6, err_msg=name)


# A command of two processes, in one of which something happens that the other does not know of.
COMMAND = """
import os, signal, sys
from unittest import mock
from tf_finetune import cli, process_environment, processes
from tf_finetune.errors import InputError

def run(argv):
    place = process_environment.Place(sys.argv[1], 2, int(sys.argv[2]))
    processes.join(place, seconds=float(sys.argv[3]))
    with processes.at_work(lambda: "nothing is kept"):
        processes.connect()
        print("work")
        if sys.argv[4] == "error" and place.index == 1:
            raise InputError("no such file")
        if sys.argv[4] == "kill" and place.index == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[4] == "abort" and place.index == 0:
            os.abort()
        processes.meet()

with mock.patch.object(cli, "_run", run):
    sys.exit(cli.main([]))
"""


def commanded(address, index, what, *, seconds=120):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, address, str(index), str(seconds), what],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_when_one_has_an_error_of_its_own_the_others_end():
    address = f"127.0.0.1:{free_port()}"
    both = [commanded(address, index, "error") for index in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert said == [
        (
            f"process 0 of 2: waiting for the others at {address}\nwork\n",
            "a process of this run ended or was lost, and says itself why if it could; nothing is kept\n",
        ),
        ("", "error: no such file\n"),
    ]
    assert [process.returncode for process in both] == [75, 2]


@pytest.mark.parametrize(("what", "number"), [("kill", signal.SIGKILL), ("abort", signal.SIGABRT)])
def test_when_process_0_is_lost_the_other_says_so_beside_what_jax_says(what, number):
    address = f"127.0.0.1:{free_port()}"
    both = [commanded(address, index, what) for index in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    # That version may end the process itself, and nobody is asked.
    by_jax = metadata.version("jax").startswith("0.7.") and both[1].returncode == 1
    assert [process.returncode for process in both] == [-number, 1 if by_jax else 75]
    words = "a process of this run ended or was lost, and says itself why if it could; nothing is kept\n"
    assert said[1][1].count(words) == (0 if by_jax else 1)
    assert by_jax <= ("JAX distributed service detected fatal errors" in said[1][1])
    assert "Traceback" not in said[1][1]


def test_a_coordinator_that_is_not_there_is_said_in_time():
    address = f"127.0.0.1:{free_port()}"
    process = commanded(address, 1, "", seconds=1)
    _, complained = process.communicate(timeout=300)
    assert process.returncode == 1
    assert complained == (
        f"error: the processes of this run did not meet within 1 s: process 0 did not answer at {address}; each is to "
        "be started with the same KERAS_DISTRIBUTION_JOB_ADDRESSES, that of process 0 as the others reach it, and its "
        "own KERAS_DISTRIBUTION_PROCESS_ID\n"
    )
