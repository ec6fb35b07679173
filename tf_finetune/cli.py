"""The command line: parse, choose the backend, call one command, turn bad input into one clear line."""

import difflib
import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence

from absl import flags

from tf_finetune import command_flags, devices, process_environment, processes, runtime, settings
from tf_finetune.config import Backend
from tf_finetune.errors import FOUND_STATUS, INTERRUPTED_STATUS, Found, InputError, Interrupted, RunError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 2 bad input, 3 measured and the answer is no (compare, drift),
    75 interrupted and to be gone on with by the same command, 1 anything else."""
    try:
        status = _status(list(sys.argv if argv is None else argv))
    except BaseException:  # a mistake of ours
        if processes.count() > 1:
            traceback.print_exc()
            processes.end(1)
        raise
    processes.end(status)
    return status


def _status(argv: list[str]) -> int:
    try:
        return _run(argv)
    except (InputError, flags.Error) as error:
        return _answer(error, status=2)
    except RunError as error:
        return _answer(error, status=1)
    except Found:
        return FOUND_STATUS
    except BrokenPipeError:  # whoever read our output has seen enough; only of predictions is a part still whole
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if argv[1:2] == ["predict"] else 1
    except OSError as error:  # a file or folder that cannot be read or written; the message names it
        return _answer(error, status=2)
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return INTERRUPTED_STATUS
    except KeyboardInterrupt:
        return _answer("interrupted", status=1)


def _answer(error: object, *, status: int) -> int:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return status


def _run(argv: list[str]) -> int:
    flag_words = argv[: argv.index("--")] if "--" in argv else argv
    if {"--help", "-help", "-h"} & set(flag_words) or argv[1:2] == ["help"]:
        print(command_flags.help_text(command_flags.define(argv[:1])))
        return 0
    command = argv[1] if argv[1:] else None
    if command is None or command.startswith("-"):
        expected = f"tf-finetune followed by {' or '.join(command_flags.COMMANDS)}, or --help"
        raise InputError("no command", expected=expected, got=command)
    if command not in command_flags.COMMANDS:
        near = difflib.get_close_matches(command, command_flags.COMMANDS, n=1, cutoff=0.0)[0]
        expected = f"one of {', '.join(command_flags.COMMANDS)}; the nearest is {near}"
        raise InputError("no such command", expected=expected, got=command)
    argv = command_flags.with_config(command_flags.with_equal_signs(argv), command)
    values = command_flags.define(argv)
    positional = values(argv)[2:]
    command_flags.check(command, values, positional)
    if command != "train":
        process_environment.refuse(command)
    settings.validated(values.config)  # before TensorFlow is imported: a wrong value is answered at once
    # What comes after training runs on TensorFlow.
    is_training = command in command_flags.TRAINING
    _prepare_environment(values.config.runtime.backend if is_training else Backend.TENSORFLOW)
    _call(command, values, positional)
    return 0


def _utf8(argument: str) -> str:
    """Bytes that are no UTF-8 come from the shell as lone surrogates; here they become U+FFFD."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _prepare_environment(backend: Backend) -> None:
    """Before TensorFlow and Keras are imported: what they read from the environment."""
    devices.check_backend(backend)
    runtime.quieten_libraries()


def _call(command: str, values: flags.FlagValues, positional: list[str]) -> None:
    if command == "check-data":
        from tf_finetune.commands import check_data

        check_data.run(values.config, strict=values.strict, json_file=values.json)
    elif command == "train" and values.dry_run:
        from tf_finetune.commands.dry_run import dry_run

        dry_run(values.config, values.workdir, restart=values.restart)
    elif command == "train":
        from tf_finetune.commands.train import train

        train(values.config, values.workdir, restart=values.restart, is_process=True)
    elif command == "cross-validate":
        from tf_finetune.commands.cross_validate import cross_validate

        cross_validate(values.config, values.workdir, restart=values.restart, is_process=True)
    elif command == "find-learning-rate":
        from tf_finetune.commands.find_learning_rate import find_learning_rate

        find_learning_rate(values.config, values.workdir)
    elif command == "sweep":
        from tf_finetune.commands.sweep import sweep

        sweep(values.config, values.workdir, search=values.search, trials=values.trials, is_process=True)
    elif command == "evaluate":
        from tf_finetune.commands.evaluate import evaluate

        evaluate(values.workdir, values.config)
    elif command == "report":
        from tf_finetune.commands.report import report

        options = {"audit": values.audit, "identity_terms": values.identity_terms, "out_of_fold": values.out_of_fold}
        report(values.workdir, values.config, **options)
    elif command == "predict":
        _predict(values, positional)
    elif command == "compare":
        from tf_finetune.commands import compare

        compare.run(*positional, values.config, margin=values.margin, json_file=values.json)
    elif command == "drift":
        from tf_finetune.commands import drift

        drift.run(values.reference, values.data, values.config, json_file=values.json)
    elif command == "export":
        from tf_finetune.commands.export import export

        export(values.workdir, values.config)
    elif command == "verify":
        from tf_finetune.commands.verify import verify, verify_saved_model

        if values.saved_model:
            verify_saved_model(values.saved_model)
        else:
            verify(values.workdir, values.config)
    else:
        from tf_finetune.commands.push_to_hub import push_to_hub

        push_to_hub(values.workdir, values.repo, private=values.private)


def _predict(values: flags.FlagValues, positional: list[str]) -> None:
    from tf_finetune.commands import predict

    config = values.config
    if values.saved_model and predict.takes_pairs(values.saved_model):
        config.data.text_pair_column = config.data.text_pair_column or "text_pair"
    sys.stdout.reconfigure(encoding="utf-8")  # JSON lines are UTF-8, whatever the terminal is
    arguments = [_utf8(text) for text in positional]
    texts = predict.given_texts(arguments, config) if arguments else predict.read_texts(values.input, config)
    if values.explain:
        return _print_explained(predict.explained_answers(values.workdir, texts, config))
    if values.saved_model:
        answers = predict.predict_with_export(values.saved_model, texts)
    else:
        answers = predict.predict(values.workdir, texts, config)
    for answer in answers:
        print(json.dumps(answer, ensure_ascii=False), flush=True)


def _print_explained(answers: Iterable[tuple]) -> None:
    """JSON lines for programs; and on standard error, where that is a terminal, the same for whoever sits at it."""
    from tf_finetune.commands.explanation_block import explanation_block

    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"  # https://no-color.org
    for answer, explanation in answers:
        print(json.dumps(answer | {"explanation": explanation.to_dict()}, ensure_ascii=False), flush=True)
        if sys.stderr.isatty():
            print(explanation_block(explanation, colour=colour), file=sys.stderr, flush=True)
