"""Asks an export with the C++ code of TensorFlow 2.12, the oldest that TensorFlow Serving's promise names.

python benchmarks/oldest_server.py SAVED_MODEL

The environment (`peers/tensorflow_2_12.txt`) has tensorflow-cpu and tensorflow-text 2.12.1; what is asked and expected
is in the export's manifest.
"""

import sys
from pathlib import Path

import environments

from tf_finetune.serving import answers
from tf_finetune.serving.export import description, newest
from tf_finetune.serving.session import run_in_c_api

ENVIRONMENT = "tensorflow_2_12"


def libraries() -> dict[str, list[str]]:
    """TensorFlow's and TensorFlow Text's, of that environment."""
    packages = next((environments.python_of(ENVIRONMENT).parent.parent / "lib").glob("python*/site-packages"))
    cores = [str(next((packages / "tensorflow").glob(f"libtensorflow_{part}.so*"))) for part in ("framework", "cc")]
    return {"libraries": cores, "op_libraries": sorted(map(str, packages.glob("tensorflow_text/python/*/_*.so")))}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    saved_model = newest(Path(sys.argv[1]))
    if reason := environments.made(ENVIRONMENT):
        sys.exit(reason)
    kept = description(saved_model)
    task, hostile = kept.task, kept.questions
    requests = [("serving_default", hostile.texts), ("tokens", hostile.tokens)]
    texts, tokens = run_in_c_api(saved_model, requests, of=libraries())
    checks = [*answers.of_texts(texts, hostile, task), *answers.of_tokens(tokens, hostile, task)]
    for check in checks:
        print(f"{'kept' if check.kept else 'BROKEN':<8}{check.promise}: {check.detail}")
    sys.exit(not all(check.kept for check in checks))


if __name__ == "__main__":
    main()
