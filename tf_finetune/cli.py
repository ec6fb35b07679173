"""The command line: parse, choose the backend, call one command, turn bad input into one clear line."""

import difflib
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from tf_finetune import runtime, settings
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import FOUND_STATUS, INTERRUPTED_STATUS, Found, InputError, Interrupted, RunError
from tf_finetune.readers import tables

COMMANDS = {
    "train": "fine-tune a checkpoint on labelled text",
    "find-learning-rate": "train a hundred steps while the rate rises, and suggest one",
    "cross-validate": "train and measure one run a fold: --config.data.folds, 5 unless set",
    "sweep": "search for better values of config fields: --search, --trials",
    "evaluate": "measure the best checkpoint on validation and test",
    "report": "write one HTML page: what the model is made of, how good it is, where it fails",
    "predict": "classify texts: arguments, --input=FILE, or standard input",
    "compare": "say whether the model of a second run may take the place of a first one's: RUN OTHER_RUN",
    "drift": "say whether new texts still look like those a run was measured on: --reference, --data",
    "export": "write the best checkpoint as a SavedModel for TensorFlow Serving",
    "verify": "check that the newest export answers as its checkpoint does",
    "push-to-hub": "upload the best checkpoint to the Hugging Face hub, as --repo=OWNER/NAME",
    "check-data": "say what is wrong with the data of a config, by file and row; needs no --workdir",
}

# Commands that take a config of their own, and no trained run.
TRAINING = ("train", "find-learning-rate", "cross-validate", "sweep")

WITH_VALUES = (
    *("config", "workdir", "search", "trials", "input", "identity_terms", "out_of_fold", "saved_model", "repo"),
    *("reference", "data", "margin", "json"),
)

# Flags that not every command has.
FLAG_OWNERS = {
    "restart": ("train", "cross-validate"),
    "search": ("sweep",),
    "trials": ("sweep",),
    "dry_run": ("train",),
    "input": ("predict",),
    "explain": ("predict",),
    "audit": ("report",),
    "identity_terms": ("report",),
    "out_of_fold": ("report",),
    "saved_model": ("predict", "verify"),
    "repo": ("push-to-hub",),
    "private": ("push-to-hub",),
    "reference": ("drift",),
    "data": ("drift",),
    "strict": ("check-data",),
    "margin": ("compare",),
    "json": ("check-data", "compare", "drift"),
}

USAGE = """\
tf-finetune COMMAND --workdir=DIR [--config=NAME_OR_FILE[:ARGUMENT]] [--config.SECTION.FIELD=VALUE ...] [TEXT ...]

commands:
{commands}

check-data takes no --workdir, compare takes two of them, and drift takes --reference=WORKDIR in its place. A text that begins with a dash goes
behind a lone --. Commands after training use the config of the workdir's run; --config.SECTION.FIELD=VALUE changes what
still can be. The fields are in tf_finetune/config.py.

flags:
{flags}

configs: {configs}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 2 bad input, 3 measured and the answer is no (compare, drift), 75
    interrupted and to be gone on with by the same command, 1 anything else."""
    argv = list(sys.argv if argv is None else argv)
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
        print(_help(_define_flags(argv[:1])))
        return 0
    command = argv[1] if argv[1:] else None
    if command is None or command.startswith("-"):
        expected = f"tf-finetune followed by {' or '.join(COMMANDS)}, or --help"
        raise InputError("no command", expected=expected, got=command)
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.0)[0]
        expected = f"one of {', '.join(COMMANDS)}; the nearest is {near}"
        raise InputError("no such command", expected=expected, got=command)
    argv = _with_config(_with_equal_signs(argv), command)
    values = _define_flags(argv)
    positional = values(argv)[2:]
    _check_flags(command, values, positional)
    settings.validated(values.config)  # before TensorFlow is imported: a wrong value is answered at once
    _prepare_environment()
    _call(command, values, positional)
    return 0


def _with_equal_signs(argv: list[str]) -> list[str]:
    """`--workdir DIR` as `--workdir=DIR`, the one form that is looked for before flags are parsed."""
    words, joined = iter(argv), []
    for word in words:
        value = next(words, None) if re.fullmatch(rf"--?({'|'.join(WITH_VALUES)})", word) else None
        joined.append(word if value is None else f"{word}={value}")
    return joined


def _with_config(argv: list[str], command: str) -> list[str]:
    """For commands after train, the workdir's own config goes in front, so that overrides have what to change."""
    flag = "reference" if command == "drift" else "workdir"
    workdir = next((word.split("=", 1)[1] for word in argv if re.match(rf"--?{flag}=", word)), "")
    if command == "compare":
        workdir = next((word for word in argv[2:] if not word.startswith("-")), "")
    given = any(re.match(r"--?config=", word) for word in argv)
    if given or command in TRAINING or not workdir:
        return argv
    path = Path(workdir).expanduser() / "config.json"
    if not path.is_file():
        raise InputError("no trained model", where=workdir, expected="a workdir that `tf-finetune train` filled")
    return [*argv[:2], f"--config={path}", *argv[2:]]


def _define_flags(argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags and texts in any order
    for word in argv:
        if match := re.match(r"--?(?:no)?config\.([^=]*)", word):
            settings.check_field(match[1], where="the command line")
    config_flags.DEFINE_config_dataclass(
        "config",
        ExperimentConfig(),
        "a config file, or the bare name of one that comes with the package",
        flag_values=values,
        sys_argv=argv,
        parse_fn=settings.load,
    )
    flags.DEFINE_string("workdir", None, "the folder of the run", flag_values=values)
    flags.DEFINE_bool(
        "restart", False, "replace the run the workdir holds instead of going on with it", flag_values=values
    )
    flags.DEFINE_bool(
        "dry_run", False, "train: two steps of the whole road, export included; keeps nothing", flag_values=values
    )
    flags.DEFINE_multi_string(
        "search",
        [],
        "sweep, once a field: FIELD=LOW..HIGH, FIELD=LOW..HIGH,log or FIELD=ONE,OTHER,...",
        flag_values=values,
    )
    flags.DEFINE_integer("trials", 20, "sweep: how many runs in all", flag_values=values)
    flags.DEFINE_string("input", None, "predict: a table, or a file with one text a line", flag_values=values)
    flags.DEFINE_bool("explain", False, "predict: what each token adds; takes far longer", flag_values=values)
    flags.DEFINE_bool("audit", False, "report: are groups of people treated alike", flag_values=values)
    flags.DEFINE_string(
        "identity_terms", None, "report --audit: a file of more words for groups of people", flag_values=values
    )
    flags.DEFINE_string(
        "out_of_fold", None, "report: the workdir of cross-validate, to look for wrong labels with", flag_values=values
    )
    flags.DEFINE_string(
        "saved_model", None, "predict, verify: an export, wherever it is, in the place of --workdir", flag_values=values
    )
    flags.DEFINE_string("repo", None, "push-to-hub: OWNER/NAME on the hub", flag_values=values)
    flags.DEFINE_bool("private", False, "push-to-hub: make a new repository private", flag_values=values)
    flags.DEFINE_string(
        "reference", None, "drift: the workdir of the run that new texts are compared with", flag_values=values
    )
    flags.DEFINE_string("data", None, "drift: new texts, a table or a file with one text a line", flag_values=values)
    flags.DEFINE_bool("strict", False, "check-data: a warning is an error, too: exit status 2", flag_values=values)
    flags.DEFINE_float("margin", None, "compare: how much worse it may be at most", flag_values=values)
    flags.DEFINE_string(
        "json", None, "check-data, compare, drift: a file to write the whole report to", flag_values=values
    )
    return values


def _check_flags(command: str, values: flags.FlagValues, positional: list[str]) -> None:
    takes_export = command in FLAG_OWNERS["saved_model"]
    if command == "check-data":
        _check_data_flags(values)
    elif command == "drift":
        _check_drift_flags(values)
    elif command == "compare":
        _check_compare_flags(values, positional)
    elif takes_export and values.saved_model:
        _check_export_flags(command, values)
    elif not values.workdir:
        other = " or --saved_model=DIR" if takes_export else ""
        raise InputError("no working directory", expected=f"--workdir=DIR{other}")
    if command in TRAINING and not values["config"].present:
        raise InputError("nothing to train", expected="--config=NAME_OR_FILE, such as --config=reviews_minilm")
    for name, owners in FLAG_OWNERS.items():
        if values[name].present and command not in owners:
            raise InputError(f"--{name} is a flag of {' and '.join(owners)}", got=command)
    if command == "push-to-hub" and not values.repo:
        raise InputError("nowhere to push to", expected="--repo=OWNER/NAME")
    if positional and command not in ("predict", "compare"):
        raise InputError(f"{command} takes flags only", got=repr(positional[0]))
    _check_texts(command, values)
    if values.json is not None and not Path(values.json).expanduser().absolute().parent.is_dir():
        raise InputError("no folder for the report", where="--json", expected="a file in a folder", got=values.json)
    if values.identity_terms is not None and not values.audit:
        raise InputError("--identity_terms is for an audit", expected="--audit beside it", got=values.identity_terms)
    if positional and values.input is not None:
        raise InputError("texts came twice", expected="arguments or --input, not both")


def _check_export_flags(command: str, values: flags.FlagValues) -> None:
    """An export has no config; what is left to say is which columns of --input are texts."""
    if values.workdir:
        raise InputError("two models", expected="--workdir=DIR or --saved_model=DIR, not both", got="both")
    if values.explain and command == "predict":
        expected = "--workdir=DIR of the run that it was exported from"
        raise InputError("an export has no gradients to explain with", expected=expected, got="--saved_model")
    fields = [f"config.{name}" for name, _ in settings.fields(ExperimentConfig())]
    can_act = ("config.data.text_column", "config.data.text_pair_column") if command == "predict" else ()
    given = ["config"] if values["config"].present else [name for name in fields if name in values]
    if beside := [name for name in given if name not in can_act]:
        raise InputError(f"an export has no config to change, in {command} --saved_model", got=f"--{beside[0]}")


def _check_data_flags(values: flags.FlagValues) -> None:
    if values["workdir"].present:
        raise InputError("check-data takes no --workdir", expected="--config=NAME_OR_FILE", got=values.workdir)
    if not values["config"].present:
        raise InputError("nothing to check", expected="--config=NAME_OR_FILE, such as --config=my_data:FILE")


def _check_drift_flags(values: flags.FlagValues) -> None:
    if values["workdir"].present:
        raise InputError("drift takes no --workdir", expected="--reference=WORKDIR of a run", got=values.workdir)
    if not values.reference:
        raise InputError("nothing to compare with", expected="--reference=WORKDIR of a run")
    if not values.data:
        raise InputError("no new texts", expected="--data=FILE, a table or one text a line")


def _check_compare_flags(values: flags.FlagValues, positional: list[str]) -> None:
    if values["workdir"].present:
        raise InputError("compare takes no --workdir", expected="compare RUN OTHER_RUN", got=values.workdir)
    if len(positional) != 2:
        got = " ".join(positional) or "none"
        raise InputError("two runs are compared", expected="compare RUN OTHER_RUN, both workdirs", got=got)
    if values.margin is not None and not 0 <= values.margin < math.inf:
        raise InputError("not a margin", where="--margin", expected="0 or more", got=values.margin)


def _check_texts(command: str, values: flags.FlagValues) -> None:
    """The file of texts of predict or drift, and whether it can have the columns that are asked for."""
    flag = "data" if command == "drift" else "input"
    name = values[flag].value
    if name is not None and not _is_readable(name):
        raise InputError("no such file", where=f"--{flag}", expected="a table, or a file of texts", got=name)
    for field in ("data.text_column", "data.text_pair_column"):
        if command in ("predict", "drift") and f"config.{field}" in values and not tables.is_table(name or ""):
            expected = f"--{flag}=FILE of .csv, .tsv, .jsonl or .parquet"
            raise InputError(f"{field} is a column of --{flag}", expected=expected, got=name)


def _is_readable(name: str) -> bool:
    """Whether there is such a file, or a pipe in the place of one."""
    path = Path(name).expanduser()
    return path.exists() and not path.is_dir()


def _utf8(argument: str) -> str:
    """Bytes that are no UTF-8 come from the shell as lone surrogates; here they become U+FFFD."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _prepare_environment() -> None:
    """Before TensorFlow and Keras are imported: what they read from the environment."""
    runtime.check_backend()
    os.environ["KERAS_BACKEND"] = "tensorflow"  # a Keras configuration file in the home folder may say otherwise
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it announces that PyTorch is missing
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it calls a second model in one process a mistake


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


def _help(values: flags.FlagValues) -> str:
    described = "\n".join(f"  --{name}: {values[name].help}" for name in ("config", "workdir", *FLAG_OWNERS))
    commands = "\n".join(f"  {name:<20}{what}" for name, what in COMMANDS.items())
    return USAGE.format(commands=commands, flags=described, configs=", ".join(settings.config_names()))
