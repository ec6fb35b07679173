"""How far an export's answers to the packaged test reviews are from PyTorch's, of the same checkpoint.

python tests/export_parity.py WORKDIR    (of a run that was exported; needs the `parity` extra)
"""

import argparse
from pathlib import Path

import numpy as np

from tf_finetune.commands.restore import temperature_of
from tf_finetune.data import sources
from tf_finetune.serving.export import newest
from tf_finetune.serving.session import run_in_c_api
from tf_finetune.workdir import Workdir


def test_reviews() -> list[str]:
    """The 1,095 of them."""
    return list(sources.load("reviews").examples["test"].texts)


def pytorch_answers(
    checkpoint: Path, texts: list[str], *, max_length: int, temperature: float = 1.0, batch_size: int = 64
):
    """Labels and probabilities (texts, num_labels) by PyTorch's class and the Hugging Face tokenizer."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    probabilities = []
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        inputs = tokenizer(batch, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            probabilities.append(torch.softmax(model(**inputs).logits / temperature, dim=-1).numpy())
    probabilities = np.concatenate(probabilities)
    return [model.config.id2label[index] for index in probabilities.argmax(axis=-1)], probabilities


def export_answers(saved_model: Path, texts: list[str]):
    """The same by the export, raw text in, through TensorFlow's C API."""
    (answer,) = run_in_c_api(saved_model, [("serving_default", {"text": texts})])
    return answer["label"], answer["probabilities"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    run = Workdir(parser.parse_args().workdir)
    texts = test_reviews()
    labels, probabilities = export_answers(newest(run.export), texts)
    checkpoint = run.best_checkpoint()
    temperature = temperature_of(checkpoint)
    expected_labels, expected = pytorch_answers(checkpoint, texts, max_length=128, temperature=temperature)
    same = sum(one == other for one, other in zip(labels, expected_labels, strict=True))
    difference = np.abs(probabilities - expected).max()
    print(f"{len(texts)} reviews: {same} labels equal, probabilities at most {difference:.1e} apart")


if __name__ == "__main__":
    main()
