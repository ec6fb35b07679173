"""A checkpoint: a Hugging Face model folder with a manifest, written aside and renamed."""

import shutil
from pathlib import Path

from tf_finetune import workdir


def save(model, tokenizer, checkpoints: Path, *, step: int, base: str) -> Path:
    """Writes `checkpoints/step_00000528`: config.json, model.safetensors, tokenizer files, manifest.

    Args:
        base: the pinned name of the checkpoint that training started from, for the manifest.

    Returns:
        The folder.
    """
    target = checkpoints / f"step_{step:08d}"
    with workdir.published_folder(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        workdir.write_manifest(folder, base=base)
    return target


def prune(checkpoints: Path, *, keep: Path) -> None:
    """Removes every checkpoint but one."""
    for folder in checkpoints.glob("step_*"):
        if folder != keep:
            shutil.rmtree(folder)
