"""How exactly, and in what time, the answers to packaged test reviews are explained.

python tests/explain_reviews.py WORKDIR [--reviews 100]    (of a run that was trained)
"""

import argparse
import collections
import time
from pathlib import Path

import numpy as np
from export_parity import test_reviews

from tf_finetune.commands.predict import explained_answers, predict
from tf_finetune.evaluation.explanation import TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--reviews", type=int, default=100)
    options = parser.parse_args()
    texts = test_reviews()[: options.reviews]
    began = time.perf_counter()
    list(predict(options.workdir, texts))
    answered = time.perf_counter()
    explanations = [explanation for _, explanation in explained_answers(options.workdir, texts)]
    explained = time.perf_counter()
    errors = np.array([explanation.completeness_error for explanation in explanations])
    differences = np.array([abs(explanation.score - explanation.baseline_score) for explanation in explanations])
    steps = collections.Counter(explanation.steps for explanation in explanations)
    exact = int((errors <= TOLERANCE).sum())
    print(f"{len(texts)} reviews: completeness error at most {errors.max():.3%}, median {np.median(errors):.4%}")
    print(
        f"{exact} of them within {TOLERANCE:.0%}; score differences {differences.min():.3f} to {differences.max():.3f}"
    )
    print("steps: " + ", ".join(f"{number} for {count}" for number, count in sorted(steps.items())))
    print(
        f"answered in {answered - began:.1f} s, answered and explained in {explained - answered:.1f} s, start included"
    )


if __name__ == "__main__":
    main()
