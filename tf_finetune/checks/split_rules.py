"""What training asks of the splits of a source."""

from collections.abc import Set

from tf_finetune.checks.findings import ERROR, Finding
from tf_finetune.checks.seen_rows import SPLITS
from tf_finetune.readers.rows import WHOLE, Found


def findings(found: Found, *, read: Set[str], used: Set[str]) -> list[Finding]:
    """Why training would refuse the splits.

    Args:
        found: what the source holds.
        read: the splits that some row was read from.
        used: the splits that training puts some row in.
    """
    named = SPLITS if WHOLE in found.splits else tuple(split for split in SPLITS if split in found.splits)
    errors = [
        Finding("empty_split", ERROR, 1, f"the {split} split has no rows") for split in named if split not in read
    ]
    if "train" not in named:
        errors.append(Finding("no_train_split", ERROR, 1, f"nothing to train on: there is only {' and '.join(named)}"))
    if "train" in read and "validation" not in named:
        errors += [
            Finding("empty_split", ERROR, 1, f"the {split} split has no rows once validation is taken out of train")
            for split in ("train", "validation")
            if split not in used
        ]
    return errors
