"""Weights stream in: loading needs at most 1.3 times the model, whatever file they come from.

A process of its own loads a model of 160 MB from each kind of file, and reports how far its memory rose: in one
process the memory that an earlier model left would serve the next.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import checkpoint_files
import pytest

from tf_finetune.bert.architecture import BertArchitecture

# The table of words is half of it, as in multilingual models: the worst case, for a tensor is the unit of some readers.
LARGE = BertArchitecture(
    vocab_size=40_000, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048
)
MIB = 2**20
# What TensorFlow itself takes at first use.
FIXED = 48 * MIB

LOADER = """
import sys
tiny, large, *libraries = sys.argv[1:]
for library in libraries:
    __import__(library)
from tf_finetune import TFBertForSequenceClassification

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))

TFBertForSequenceClassification.from_pretrained(tiny)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
model = TFBertForSequenceClassification.from_pretrained(large)
print(status("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def tensors():
    return checkpoint_files.random_tensors(LARGE)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured through Linux's /proc")
@pytest.mark.parametrize(
    "kind",
    # A pickle and a safetensors file by themselves say most of their shards.
    [
        pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("safetensors_shards", "bin_shards", "old_bin")))
        for kind in checkpoint_files.KINDS
    ],
)
def test_loading_peaks_at_one_and_a_third_of_the_model(kind, tensors, tmp_path):
    libraries = ["h5py"]
    if kind in checkpoint_files.PICKLED:
        pytest.importorskip("torch", reason="a pickle is read with PyTorch")
        libraries.append("torch")
    tiny = checkpoint_files.write_checkpoint(tmp_path / "tiny", kind)
    large = checkpoint_files.write_checkpoint(tmp_path / "large", kind, tensors, LARGE)
    command = [sys.executable, "-c", LOADER, tiny, large, *libraries]
    # The path, because this process may see the package in a place of its own.
    process = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stdout=-1, check=True)
    shutil.rmtree(large)
    peak, model = int(process.stdout), sum(value.nbytes for value in tensors.values())
    print(f"{kind}: {peak / MIB:.0f} MiB, {peak / model:.2f} of the model")
    assert peak < 1.3 * model + FIXED
