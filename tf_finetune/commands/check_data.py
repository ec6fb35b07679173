"""`tf-finetune check-data`: what is wrong with the data of a config, by file and row, before time is spent on it."""

import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_finetune import json_files, pretrained, runtime, settings
from tf_finetune.checks import data_report, findings
from tf_finetune.commands import continual
from tf_finetune.commands.inputs import RANDOM_TINY
from tf_finetune.config import ExperimentConfig, ProblemType, Truncation
from tf_finetune.data import sources
from tf_finetune.errors import InputError

if TYPE_CHECKING:
    from tf_finetune.text.tokenizer import Tokenizer

# Classes that the table has a line for.
SHOWN_LABELS = 12
# Longer than any text, so that none is cut while its tokens are counted.
UNCUT = 2**31


def check_data(config: ExperimentConfig, *, most_rows: int | None = None) -> dict[str, Any]:
    """Reads the splits that a training run would read, and reports what is wrong with them.

    Rows that training would refuse are reported, too, each by its line. Prints nothing.

    Args:
        config: of the run to come.
        most_rows: how many rows of a finding are listed; None means all.

    Returns:
        `checks.data_report.DataReport` as a dict: splits (examples, labels, tokens, truncated), notes, findings (kind,
        severity, count, sentence, rows), and the numbers of errors and warnings.

    Raises:
        InputError: no such data, or a fault of a whole file, such as no such column; no such checkpoint.
    """
    return _report(settings.validated(config), most_rows=most_rows).to_dict()


def run(config: ExperimentConfig, *, strict: bool = False, json_file: str | Path | None = None) -> None:
    """Prints the report, and writes it as JSON where a file is named.

    Raises:
        InputError: a finding is an error (or, with `strict`, a warning); or what `check_data` raises.
    """
    report = _report(settings.validated(config), most_rows=findings.SHOWN_ROWS if json_file is None else None)
    if json_file is not None:
        json_files.write(Path(json_file).expanduser(), report.to_dict())
    for line in _lines(report):
        runtime.say(line)
    if report.errors or (strict and report.warnings):
        found = [findings.plural(report.errors, "error")] * bool(report.errors)
        found += [findings.plural(report.warnings, "warning")] * bool(strict and report.warnings)
        raise InputError("the data is not clean", where=report.source, expected="no findings", got=" and ".join(found))


def _report(config: ExperimentConfig, *, most_rows: int | None = None) -> data_report.DataReport:
    options = settings.source_options(config)
    for name in ("folds", "fold"):  # shares of the same rows
        del options[name]
    return data_report.check(
        sources.find(options["source"], options.pop("columns")),
        count_tokens=_token_counter(continual.checkpoint_of(config.model.checkpoint)),
        max_length=config.data.max_length,
        most_rows=most_rows,
        **options,
    )


def _token_counter(checkpoint: str) -> data_report.CountTokens:
    """Counts with the checkpoint's tokenizer, read when the first rows are there: faulty files are answered before."""
    tokenizer = functools.cache(functools.partial(_tokenizer, checkpoint))
    options = {"max_length": UNCUT, "truncation": Truncation.HEAD}

    def count(texts: Sequence[str], pairs: Sequence[str] | None) -> list[int]:
        if pairs is None:
            return [len(ids) for ids in tokenizer().encode(texts, **options)]
        return [len(ids) for ids in tokenizer().encode_pairs(texts, pairs, **options)[0]]

    return count


def _tokenizer(checkpoint: str) -> "Tokenizer":
    from tf_finetune.text.tokenizer import Tokenizer

    if checkpoint != RANDOM_TINY:
        return Tokenizer(pretrained.local_checkpoint(checkpoint))
    from tf_finetune.bert import tiny

    with tempfile.TemporaryDirectory() as folder:
        tiny.write_tokenizer(Path(folder))
        return Tokenizer(folder)


def _lines(report: data_report.DataReport) -> list[str]:
    """The report for a terminal: sizes and lengths, labels, then findings, worst first."""
    printed = [f"data: {report.source}", *(f"note: {note}" for note in report.notes)]
    header = f"{'split':<12}{'examples':>10}{'tokens: median':>17}{'90%':>7}{'99%':>7}{'max':>7}"
    printed.append(f"{header}   longer than {report.max_length}")
    for name, split in report.splits.items():
        median, *others = split.tokens.values()
        lengths = f"{median:>17}" + "".join(f"{value:>7}" for value in others)
        printed.append(
            f"{name:<12}{split.examples:>10}{lengths}{split.truncated:>{15 + len(str(report.max_length))}.1%}"
        )
    printed.append(f"data.max_length={report.max_length_for_99_percent} would cut one text in a hundred at most")
    printed += _label_table(report)
    printed += findings.lines(report.findings) or ["nothing found"]
    return printed


def _label_table(report: data_report.DataReport) -> list[str]:
    """A line for each label, a column for each split; of numbers their range."""
    is_number = report.problem_type == ProblemType.REGRESSION.value
    names = list(dict.fromkeys(name for split in report.splits.values() for name in split.labels))
    width = min(max([12, *(len(name) + 2 for name in names[:SHOWN_LABELS])]), shutil.get_terminal_size().columns // 2)
    printed = [f"{'label':<{width}}" + "".join(f"{split:>18}" for split in report.splits)]
    for name in names[:SHOWN_LABELS]:
        cells = (_cell(split, name, is_number=is_number) for split in report.splits.values())
        printed.append(f"{name[: width - 2]:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    if len(names) > SHOWN_LABELS:
        printed.append(f"and {len(names) - SHOWN_LABELS} more labels")
    return printed


def _cell(split: data_report.SplitReport, name: str, *, is_number: bool) -> str:
    if name not in split.labels:
        return "-"
    value = split.labels[name]
    return f"{value:.4g}" if is_number else f"{value} ({value / split.examples:.1%})"
