"""The original's numbers for a case: PyTorch's BertForSequenceClassification of `transformers`, eager attention."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import transformers
from bert_cases import Case, Numbers, draw_weight, dropped

transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)  # for matrices as small as these, threads cost more than they bring


def pytorch_model(case: Case, seed: int) -> torch.nn.Module:
    """The case's model, its weights drawn by numpy: PyTorch's own generator may change with its version."""
    config = transformers.BertConfig(**case.config, attn_implementation="eager")
    model = transformers.BertForSequenceClassification(config)
    random = np.random.default_rng([seed, 1])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            value = draw_weight(random, name, tuple(weight.shape), case.config["initializer_range"])
            weight.copy_(torch.from_numpy(value))
    return model


def write_checkpoint(case: Case, folder: Path, seed: int) -> torch.nn.Module:
    """Writes the case's model as PyTorch users save it, and returns it."""
    model = pytorch_model(case, seed)
    model.save_pretrained(folder)
    return model


def pytorch_outputs(model: torch.nn.Module, inputs: dict[str, np.ndarray], labels=None):
    batch = {name: torch.from_numpy(value).long() for name, value in inputs.items()}
    labels = None if labels is None else torch.from_numpy(labels)
    return model(**batch, labels=labels, output_hidden_states=True)


def pytorch_numbers(model: torch.nn.Module, case: Case, *, training: bool) -> Numbers:
    """What `bert_numbers.keras_numbers` returns for our model."""
    model.train(training)
    model.zero_grad()
    pooled = []
    with scaling_dropout(), recorded(model.bert.pooler, pooled):
        outputs = pytorch_outputs(model, case.inputs, case.labels)
        outputs.loss.backward()
    states = {f"hidden_states.{index}": state for index, state in enumerate(outputs.hidden_states)}
    gradients = {f"gradients.{name}": weight.grad for name, weight in model.named_parameters()}
    numbers = {"logits": outputs.logits, "loss": outputs.loss, "pooler_output": pooled[0], **states, **gradients}
    return {name: value.detach().numpy().copy() for name, value in numbers.items()}


@contextlib.contextmanager
def recorded(module: torch.nn.Module, outputs: list[torch.Tensor]) -> Iterator[None]:
    """What the module returns inside is appended to `outputs`."""
    handle = module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        yield
    finally:
        handle.remove()


def scaling_dropout():
    """PyTorch's dropout multiplies by `bert_numbers.dropped` instead, in training mode."""

    def dropout(values, p=0.5, training=True, inplace=False):
        return values * torch.from_numpy(dropped(values.shape[-1], p)).to(values.dtype) if training else values

    return mock.patch.object(torch.nn.functional, "dropout", dropout)
