"""Small texts to train on, and a config that does so in seconds."""

import csv
import random

from tf_finetune.config import ExperimentConfig, Precision

FILLERS = ("the", "a", "film", "is", "was", "very", "so", "plot", "cast", "it", "and")


def write_films(path):
    """120 texts of 2 to 40 words, 95 of them for training; "good" or "great" in one makes it positive."""
    chosen = random.Random(0)
    rows = []
    for _ in range(120):
        label = chosen.choice(["neg", "pos"])
        words = chosen.choices(FILLERS, k=chosen.randrange(1, 40))
        words.insert(
            chosen.randrange(len(words)), chosen.choice(["good", "great"] if label == "pos" else ["bad", "dull"])
        )
        rows.append(f"{' '.join(words)},{label}")
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def one_epoch(table, checkpoint):
    config = ExperimentConfig()
    config.model.checkpoint = str(checkpoint)
    config.data.source = str(table)
    config.data.max_length = 32
    config.optimizer.learning_rate = 1e-3
    config.train.epochs = 1
    config.runtime.precision = Precision.FLOAT32
    return config


def write_rows(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "shop"), *rows])
    return path


def sentences(count, labels, *, seed=0, odd=("",)):
    """Texts of the words of films with a word for the label, each with a shop and something odd in front."""
    chosen = random.Random(seed)
    words = dict(zip(labels, ("good", "bad"), strict=True))
    for number in range(count):
        label = labels[number % 2]
        text = [*chosen.choices(FILLERS, k=chosen.randrange(2, 20)), words[label], str(number)]
        yield f"{odd[number % len(odd)]} {' '.join(text)}".strip(), label, f"shop {number % 3}"


STEPS = 6  # an epoch of the config below


def three_epochs(table, checkpoint):
    config = one_epoch(table, checkpoint)
    config.train.epochs, config.train.batch_size, config.train.log_every_steps = 3, 16, 4
    return config
