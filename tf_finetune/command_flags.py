"""The words of a command line: which commands and flags there are, and whether those given fit together."""

import math
import re
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from tf_finetune import settings
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError
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

check-data takes no --workdir, compare takes two runs instead, and drift takes --reference=WORKDIR. A text that begins
with a dash goes behind a lone --. Commands after training use the config of the workdir's run;
--config.SECTION.FIELD=VALUE changes what still can be. The fields are in tf_finetune/config.py.

flags:
{flags}

configs: {configs}"""


def with_equal_signs(argv: list[str]) -> list[str]:
    """`--workdir DIR` as `--workdir=DIR`, the one form that is looked for before flags are parsed."""
    words, joined = iter(argv), []
    for word in words:
        value = next(words, None) if re.fullmatch(rf"--?({'|'.join(WITH_VALUES)})", word) else None
        joined.append(word if value is None else f"{word}={value}")
    return joined


def with_config(argv: list[str], command: str) -> list[str]:
    """For commands after train, the workdir's own config goes in front, so that overrides have what to change."""
    flag = "reference" if command == "drift" else "workdir"
    workdir = next((word.split("=", 1)[1] for word in argv if re.match(rf"--?{flag}=", word)), "")
    if command == "compare":  # two runs, and perhaps the value of a flag before them
        workdir = next(iter([word for word in argv[2:] if not word.startswith("-")][-2:]), "")
    given = any(re.match(r"--?config=", word) for word in argv)
    if given or command in TRAINING or not workdir:
        return argv
    path = Path(workdir).expanduser() / "config.json"
    if not path.is_file():
        raise InputError("no trained model", where=workdir, expected="a workdir that `tf-finetune train` filled")
    return [*argv[:2], f"--config={path}", *argv[2:]]


def define(argv: list[str]) -> flags.FlagValues:
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


def check(command: str, values: flags.FlagValues, positional: list[str]) -> None:
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
            of = " and ".join(filter(None, [", ".join(owners[:-1]), owners[-1]]))
            raise InputError(f"--{name} is a flag of {of}", got=command)
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


def help_text(values: flags.FlagValues) -> str:
    described = "\n".join(f"  --{name}: {values[name].help}" for name in ("config", "workdir", *FLAG_OWNERS))
    commands = "\n".join(f"  {name:<20}{what}" for name, what in COMMANDS.items())
    return USAGE.format(commands=commands, flags=described, configs=", ".join(settings.config_names()))
