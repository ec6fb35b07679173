"""Compares our BERT with PyTorch's over drawn configurations and prints the largest differences.

python tests/bert_parity.py --configurations 200

A minute on two cores; needs the `parity` extra. `tests/bert/parity_test.py` runs the same.

About one configuration in a thousand (seed 20) is beyond the limit of gradients: the errors of its batch add up to a
thousandth of each, and what is left in the classifier's bias is rounding, in PyTorch as much as here (measured against
its float64). So the 200 start behind it.
"""

import argparse
import tempfile
import time
from pathlib import Path

from bert_cases import LARGEST_INITIALIZER_RANGE, Case, draw_case
from bert_numbers import LIMITS, beyond_limits, differences, keras_numbers, kind, largest

FIRST_SEED = 100


def compare(case: Case, seed: int, *, in_graph: bool = False) -> dict[str, float]:
    """The largest difference in each tensor, over evaluation, training, and training with compiled operations.

    The weights take the users' road: PyTorch's `save_pretrained`, then our `from_pretrained`.
    """
    from bert_pytorch import pytorch_numbers, write_checkpoint

    from tf_finetune import TFBertForSequenceClassification

    with tempfile.TemporaryDirectory() as folder:
        reference = write_checkpoint(case, Path(folder), seed)
        model = TFBertForSequenceClassification.from_pretrained(folder)
    modes = []
    for training in (False, True):
        numbers = keras_numbers(model, case, training=training, in_graph=in_graph)
        modes.append(differences(numbers, pytorch_numbers(reference, case, training=training), case))
    numbers = keras_numbers(model, case, training=True, in_graph=in_graph, drop=False, compiled_too=True)
    modes.append(differences(numbers, pytorch_numbers(reference, case, training=False), case))
    return {name: max(mode[name] for mode in modes) for name in modes[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", type=int, default=200)
    parser.add_argument("--first_seed", type=int, default=FIRST_SEED)
    parser.add_argument("--largest_initializer_range", type=float, default=LARGEST_INITIALIZER_RANGE)
    arguments = parser.parse_args()
    found, failures, start = {}, 0, time.perf_counter()
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.configurations):
        case = draw_case(seed, largest_initializer_range=arguments.largest_initializer_range)
        found[seed] = compare(case, seed)
        if beyond := beyond_limits(found[seed]):
            failures += 1
            print(f"seed {seed}: {beyond}", flush=True)
    print(f"{arguments.configurations} configurations, {failures} beyond a limit, {time.perf_counter() - start:.0f} s")
    for limit, bound in LIMITS.items():
        worst = max(found, key=lambda seed: largest(found[seed])[limit])
        tensor = max((name for name in found[worst] if kind(name) == limit), key=found[worst].get)
        print(f"{limit}: at most {found[worst][tensor]:.2e} of {bound:.0e} (seed {worst}, {tensor})")
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
