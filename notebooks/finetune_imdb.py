# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   accelerator: GPU
# ---

# %% [markdown]
# # Fine-tune BERT on film reviews, and serve it with TensorFlow Serving
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tf_finetune/blob/main/notebooks/finetune_imdb.ipynb)
#
# From a pretrained BERT and labelled text to a SavedModel that takes raw text and answers with a label and a calibrated
# probability. *Run all* does everything: on a **GPU** or a **TPU** BERT-base learns IMDB, 50,000 long film reviews;
# where there is only a **CPU**, a small BERT learns some short ones, in minutes. In Colab, *Runtime > Change runtime
# type* is where an accelerator is chosen.

# %% [markdown]
# ## 1. What to run
#
# Leave it as it is for a first time.

# %% tags=["parameters"]
# "imdb_bert_base": BERT-base on IMDB. "reviews_minilm": a small BERT (MiniLM) on short reviews, both of which come from
# the Python package index. "auto": the first where there is a GPU or a TPU, else the second.
config_name = "auto"  # @param ["auto", "imdb_bert_base", "reviews_minilm"] {allow-input: true}
# Any other setting of tf_finetune/config.py, such as {"data.max_examples": 2000, "train.epochs": 1}.
overrides = {}
# The run is kept in a folder in here, and goes on from there should this be run again.
runs_folder = "runs"  # @param {type:"string"}
# Asked before and after training; yours are welcome.
texts = [
    "The movie was absolutely wonderful, full of joy.",
    "The movie was terrible and boring.",
    "Two hours I will never get back.",
    "I laughed, I cried, and I want to see it again.",
]

# %% [markdown]
# ## 2. Install, and see what there is to train on
#
# Nothing is installed where the package is there already. In Colab it needs no restart: every package that the session
# came with and that could be in use keeps its version.

# %%
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

# The one place to change for another repository; `make notebook` carries it to the badges.
REPOSITORY = "OWNER/tf_finetune"
# What pip must not replace under a running kernel. Colab's versions are new enough; TensorFlow is missing on its TPUs.
KEPT = ("numpy", "tensorflow", "tensorflow-text", "keras", "jax", "jaxlib", "matplotlib", "ipykernel")


def install():
    """From a wheel in the folder this runs in, else from the repository; both carry the configs."""
    wheels = sorted(Path().glob("tf_finetune-*.whl"))
    source = str(wheels[-1]) if wheels else f"tf_finetune @ git+https://github.com/{REPOSITORY}"
    if source.endswith("OWNER/tf_finetune"):
        raise RuntimeError(
            f"REPOSITORY names no repository yet: put a wheel (python -m build) into {Path().absolute()}"
        )
    installed = {one.name.lower().replace("_", "-"): one.version for one in importlib.metadata.distributions()}
    kept = [f"{name}=={installed[name]}\n" for name in KEPT if name in installed]
    with tempfile.TemporaryDirectory() as folder:
        constraint = Path(folder) / "kept.txt"
        constraint.write_text("".join(kept), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", f"--constraint={constraint}"]
        subprocess.run([*pip, source], check=True)
    importlib.invalidate_caches()


spec = importlib.util.find_spec("tf_finetune")
if spec is None or spec.origin is None:  # a clone's folder looks like a package without an origin
    install()
print(f"tf_finetune {importlib.metadata.version('tf_finetune')}")

# %% [markdown]
# A GPU is TensorFlow's. A TPU is JAX's: Keras then trains on JAX, TensorFlow reads the data on the host and makes the
# export in a second process. Keras takes its backend from the environment when it is first imported, which is why this
# comes before.

# %%
import os
import shutil
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # bars without ipywidgets are of letters


def accelerator():
    """ "GPU", "TPU" or "CPU"."""
    if shutil.which("nvidia-smi") and not subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode:
        return "GPU"
    if importlib.util.find_spec("libtpu"):  # asked first: JAX would take a GPU's memory
        import jax

        return "TPU" if jax.default_backend() == "tpu" else "CPU"
    return "CPU"


found = accelerator()
if found == "TPU":
    os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from tf_finetune import runtime

runtime.quieten_libraries()
runtime.import_tensorflow_quietly()
import keras
import tensorflow as tf

if found == "GPU" and keras.backend.backend() == "tensorflow" and not tf.config.list_physical_devices("GPU"):
    print("There is a GPU here that TensorFlow cannot use.")
    found = "CPU"
print(f"{found} found; Keras {keras.__version__} on {keras.backend.backend()}")

# %% [markdown]
# ### Optional: a run that outlives the session
#
# A Colab session may end before the training does. With the run's folder on Google Drive, run all of this again in a
# new session, and it goes on from the last checkpoint, ten minutes old at most. Off unless you say `True`; it asks for
# access to your Drive. A checkpoint of BERT-base with its training state takes 1.3 GB there, of which the last two and
# the best are kept; those that are removed may be in Drive's bin until you empty it.

# %%
on_drive = False  # @param {type:"boolean"}
if on_drive:
    from google.colab import drive

    drive.mount("/content/drive")
    runs_folder = "/content/drive/MyDrive/tf_finetune_runs"

# %% [markdown]
# ## 3. The data and the settings
#
# A config is Python: change any field here, for example `config.train.epochs = 2`.

# %%
import tf_finetune
from tf_finetune import settings

if config_name == "auto" and found == "CPU":
    config_name = "reviews_minilm"
    overrides = {"data.max_examples": 2000} | overrides
    print("Only a CPU is here, on which BERT-base would take hours for IMDB: instead, a small model (MiniLM) learns")
    print('2,000 short reviews, unless overrides say otherwise. config_name = "imdb_bert_base" insists.')
elif config_name == "auto":
    config_name = "imdb_bert_base"

config = settings.load(config_name)
if config_name == "imdb_bert_base":
    config.train.log_every_steps = 200
    config.export.compared_examples = 200  # verification is on the CPU, whatever trained
config = settings.with_values(config, overrides)
workdir = Path(runs_folder) / config_name.replace(":", "_")

print(f"{config.model.checkpoint} on {config.data.source}, {config.data.max_length} tokens a text at most")
print(f"{config.train.epochs} epochs in batches of {config.train.batch_size}; the run's folder is {workdir}")

# %% [markdown]
# ## 4. Before
#
# The encoder knows English from its pretraining; the classifier on top is new and random. So it guesses.
#
# `TFBertForSequenceClassification` is a Keras model, and `model.fit` would train it. From here on `tf_finetune.train`
# does, which also keeps checkpoints, the best of them, and all that is measured.

# %%
import transformers

from tf_finetune.pretrained import local_checkpoint

keras.utils.set_random_seed(config.runtime.seed)
folder = local_checkpoint(config.model.checkpoint)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
untrained = tf_finetune.TFBertForSequenceClassification.from_pretrained(folder, num_labels=2)
inputs = tokenizer(texts, padding=True, truncation=True, max_length=config.data.max_length, return_tensors="np")
before = keras.ops.convert_to_numpy(keras.ops.softmax(untrained.predict(dict(inputs), verbose=0)))
for text, (negative, positive) in zip(texts, before, strict=True):
    print(f"{negative:6.1%} negative  {positive:6.1%} positive  {text}")
del untrained

# %% [markdown]
# ## 5. Train
#
# Each line of progress has a second one, which says what the steps cost and how long the rest will take.
#
# *Interrupt* (the square, or Ctrl-C's signal) saves after the step at work. Run the cell again, and it goes on where it
# stopped; on the same CPU to the same weights. When it is finished, running it again changes nothing;
# `tf_finetune.train(config, workdir, restart=True)` begins anew, which other settings in the same folder ask for.

# %%
best = tf_finetune.train(config, workdir)

# %% [markdown]
# ## 6. The curves

# %%
import io
import json

from IPython.display import Image, display
from matplotlib.figure import Figure


def show(figure, words):
    """The figure on white, so that dark mode does not swallow its letters; the words are for who cannot see it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, facecolor="white")
    display(Image(content.getvalue(), alt=words))
    print(words)


records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
figure = Figure(figsize=(9, 3.4), layout="constrained")
for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
    for split, marker in (("train", "."), ("validation", "o")):
        points = [(one["step"], one[metric]) for one in records if one["split"] == split and metric in one]
        axes.plot(*zip(*points, strict=True), marker=marker, label=split)
    axes.set(xlabel="step", ylabel=metric)
    axes.grid(alpha=0.3)
    axes.legend()
validated = [one for one in records if one["split"] == "validation"]
first, last = validated[0], validated[-1]
show(
    figure,
    f"Loss and accuracy by step. On validation the loss went from {first['loss']:.3f} to {last['loss']:.3f}, and the "
    f"accuracy from {first['accuracy']:.1%} to {last['accuracy']:.1%}.",
)

# %% [markdown]
# ## 7. After
#
# The same texts. Probabilities are calibrated: of answers given with 90%, about nine in ten should be right.

# %%
answers = list(tf_finetune.predict(workdir, texts))
for answer in answers:
    print("  ".join(f"{p:6.1%} {name}" for name, p in answer["probabilities"].items()), f" {answer['text']}")

# %% [markdown]
# ## 8. How good is it?
#
# On the validation split, by which the best checkpoint was chosen, and on the test split, which nothing has seen.

# %%
results = tf_finetune.evaluate(workdir)

# %%
split = "test" if "test" in results else "validation"
matrix, names = results[split]["confusion_matrix"], results[split]["labels"]
figure = Figure(figsize=(4.4, 3.8), layout="constrained")
axes = figure.subplots()
axes.imshow(matrix, cmap="Blues", vmin=0)
for row, counts in enumerate(matrix):
    for column, count in enumerate(counts):
        dark = count > max(map(max, matrix)) / 2
        axes.text(column, row, f"{count:,}", ha="center", va="center", color="white" if dark else "black")
axes.set_xticks(range(len(names)), names)
axes.set_yticks(range(len(names)), names)
axes.set(xlabel="answered", ylabel="true")
wrong = ", ".join(
    f"{counts[column]:,} {names[row]} ones taken for {names[column]}"
    for row, counts in enumerate(matrix)
    for column in range(len(names))
    if column != row
)
right = f"{results[split]['accuracy']:.1%} of {results[split]['examples']:,} right"
show(figure, f"Confusion matrix, {split}: {right}; {wrong}.")

# %% [markdown]
# ## 9. Where does it fail?
#
# The report says what it was trained on, how sure the numbers are, in which slices it is worse, and shows the wrong
# answers given with the most confidence, with the words that pushed them.

# %%
import html

from IPython.display import HTML

make_report = found != "TPU"  # it is computed on the CPU there, which all of IMDB keeps busy for long
if make_report:
    report = tf_finetune.report(workdir)
    page = html.escape((workdir / "report.html").read_text(encoding="utf-8"))
    style = "width: 100%; height: 640px; border: 1px solid"
    display(HTML(f'<div><iframe title="Report" srcdoc="{page}" sandbox style="{style}"></iframe></div>'))
else:
    print(f"not made here, where it would take long: tf-finetune report --workdir={workdir}, wherever the folder goes")

# %% [markdown]
# ## 10. Export and verify
#
# A SavedModel that needs neither Python nor this package: the tokenizer and the label names are in its graph. `verify`
# asks it through TensorFlow's C API, which is what TensorFlow Serving runs, and compares its answers with the
# checkpoint's.

# %%
unverified = settings.with_values(config, {"export.verify": False})  # the next cell does; else the export itself would
exported = tf_finetune.export(workdir, unverified)

# %%
tf_finetune.verify(workdir)
print("no promise is broken")  # or else this line would not have been reached

# %% [markdown]
# ## 11. Ask it
#
# Change the text and run the cell again.

# %%
my_text = "I expected nothing, and it was still a disappointment."  # @param {type:"string"}
[answer] = tf_finetune.predict(workdir, [my_text])
print(f"{answer['label']} ({answer['score']:.1%}): {answer['text']}")

# %% [markdown]
# ## 12. Take it along
#
# The export with what a server is started with: `README.md` in it has the commands. The best checkpoint, which PyTorch
# opens as well, is the other thing worth keeping.

# %%
archive = shutil.make_archive(str(workdir / "export"), "zip", root_dir=workdir, base_dir="export")
print(f"export:     {archive}, {Path(archive).stat().st_size / 1e6:.0f} MB")
print(f"checkpoint: {workdir / 'checkpoints' / best['checkpoint']}")
if make_report:
    print(f"report:     {workdir / 'report.html'}")
if "google.colab" in sys.modules:
    from google.colab import files

    files.download(archive)

# %% [markdown]
# ## What next
#
# - **Your own texts**: `config_name = "my_data:tickets.csv"` in step 1, a file with the columns `text` and `label`;
#   leave step 4 out where there are other than two labels. `tf_finetune.check_data(config)` says what is wrong with it.
# - **The same without a notebook**: `tf-finetune train --config=imdb_bert_base --workdir=runs/imdb`, and the other
#   steps by the same names.
# - Everything else is in the project's README: pairs of texts, several labels, regression, LoRA, sweeps, drift.
