"""Does an export keep its promises? Asked where TensorFlow Serving would ask: outside of the process that made it."""

from pathlib import Path

from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.serving import answers, clients, served_ops, warmup
from tf_finetune.serving.answers import Check
from tf_finetune.serving.questions import Questions, Task
from tf_finetune.serving.session import Answer, run_in_c_api, run_in_python
from tf_finetune.workdir import check_manifest

THROUGH_C_API = "answers through TensorFlow's C API"
IN_PYTHON = "answers the same in a process of TensorFlow and TensorFlow Text alone"
SCANNED = "saved_model_cli scan finds no operation it warns of"

# Time to answer: for a start, and what a slow machine takes for a token of a large model.
SECONDS, SECONDS_A_TOKEN = 120.0, 0.1

# The last of HOSTILE_TEXTS hold the long one, on either side of a pair.
SHORT, LONG = slice(0, -2), slice(-2, None)
FIRST = slice(0, 1)


def verify(saved_model: Path, task: Task, hostile: Questions, test: Questions | None = None) -> list[Check]:
    """Asks the export what its checkpoint answered, and stops where there is nothing left to ask.

    Args:
        saved_model: one version of an export.
        task: what kind of answers it gives.
        hostile: HOSTILE_TEXTS, answered by the checkpoint.
        test: more texts, such as the test split.

    Raises:
        InputError: the folder is not a SavedModel.
    """
    signatures = answers.signatures(saved_model, task)
    checks = [_files(saved_model), signatures, served_ops.check(saved_model)]
    if task.problem_type is not ProblemType.REGRESSION:
        checks.append(answers.label_names(saved_model, task))
    if not signatures.kept:
        return checks
    recorded = warmup.read(saved_model)
    asked = _requests(hostile, test) | {f"warmup {n}": request for n, request in enumerate(recorded or [])}
    tokens = sum(len(ids) for questions in (hostile, test) if questions for ids in questions.token_ids)
    timeout = SECONDS + SECONDS_A_TOKEN * tokens
    try:
        answered = dict(zip(asked, run_in_c_api(saved_model, list(asked.values()), timeout), strict=True))
    except (RuntimeError, InputError) as error:
        return [*checks, Check(THROUGH_C_API, False, str(error))]
    return [
        *checks,
        Check(THROUGH_C_API, True, f"{len(asked)} requests, no Python TensorFlow in the process"),
        *_as_the_checkpoint(answered, hostile, test, task),
        warmup.check(recorded, [answer for name, answer in answered.items() if name.startswith("warmup")]),
        clients.check_rest(answered["texts"], answered),
        clients.check_grpc(answered["texts"]),
        *_in_python(saved_model, asked, answered),
    ]


def _requests(hostile: Questions, test: Questions | None) -> dict[str, warmup.Request]:
    """Those of which an answer is known, by what they are."""
    short, long, first = (hostile.some(rows) for rows in (SHORT, LONG, FIRST))
    rest = {form: clients.through_rest(hostile, row=row) for form, row in clients.FORMS.items()}
    return {
        "texts": ("serving_default", hostile.texts),
        "one text": ("serving_default", first.texts),
        "no text": ("serving_default", dict.fromkeys(hostile.texts, ())),
        "short texts": ("serving_default", short.texts),
        "short tokens": ("tokens", short.tokens),
        "long tokens": ("tokens", long.tokens),
        **rest,
        **({"test": ("serving_default", test.texts)} if test else {}),
    }


def _as_the_checkpoint(
    answered: dict[str, Answer], hostile: Questions, test: Questions | None, task: Task
) -> list[Check]:
    short, long, first = (hostile.some(rows) for rows in (SHORT, LONG, FIRST))
    checks = [
        *answers.of_texts(answered["texts"], hostile, task),
        *answers.of_texts(answered["one text"], first, task, what=", alone")[:1],
        *answers.of_tokens(answered["short tokens"], short, task),
        *answers.of_tokens(answered["long tokens"], long, task)[:1],
        answers.empty(answered["no text"]),
    ]
    return checks + (answers.of_texts(answered["test"], test, task, what=f", {len(test)} more texts") if test else [])


def _in_python(saved_model: Path, asked: dict[str, warmup.Request], answered: dict[str, Answer]) -> list[Check]:
    again = ("short texts", "short tokens")
    try:
        replies, scan = run_in_python(saved_model, [asked[name] for name in again])
    except RuntimeError as error:
        return [Check(IN_PYTHON, False, str(error))]
    checks = [answers.same(IN_PYTHON, answered[name], reply) for name, reply in zip(again, replies, strict=True)]
    broken = [check for check in checks if not check.kept]
    clean = "does not contain the default denylisted ops" in scan
    return [(broken or checks)[0], Check(SCANNED, clean, "none" if clean else scan[:200])]


def _files(saved_model: Path) -> Check:
    promise = "files are as they were exported"
    try:
        return Check(
            promise, True, f"{len(check_manifest(saved_model, what='an export')['files'])} files, by their sha256"
        )
    except InputError as error:
        return Check(promise, False, str(error))
