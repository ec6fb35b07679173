"""`tf-finetune train --dry_run`: the whole road in two steps, to find every mistake before hours are spent."""

import dataclasses
import json
import tempfile
import time
from pathlib import Path

from tf_finetune import devices, process_environment, runtime, settings
from tf_finetune.commands import resume
from tf_finetune.commands.evaluate import measure, print_table
from tf_finetune.commands.export import export
from tf_finetune.commands.inputs import gather
from tf_finetune.commands.restore import load_classifier
from tf_finetune.config import ExperimentConfig
from tf_finetune.data.sources import Splits
from tf_finetune.serving.export import has_tensorflow_text
from tf_finetune.training.stops import Stops
from tf_finetune.workdir import Workdir

# Few enough that BERT-base at 512 tokens stays within a minute or so on two cores.
STEPS, EXAMPLES_A_STEP, EVALUATED = 2, 4, 4


def dry_run(config: ExperimentConfig, workdir: str | Path, *, restart: bool = False) -> None:
    """Trains two steps on the run's own data and checkpoint, evaluates, exports and verifies; keeps nothing.

    A step has at most four examples, so that it takes no time: whether a whole batch fits in memory is not tried.

    Args:
        config: of the run to come.
        workdir: of the run to come; whether it can be used is checked, and nothing of it is changed.
        restart: whether an earlier run there is to be replaced; else its config and checkpoints must be such
            that one can go on. Whether the data is still what it was is seen by the run itself.

    Raises:
        InputError, RunError: whatever the run itself would meet on its road.
    """
    began = time.perf_counter()
    process_environment.refuse("--dry_run")
    devices.check_backend(settings.validated(config).runtime.backend)
    with Workdir(workdir).locked():
        Workdir(workdir).check_ours()
        if not restart:
            resume.earlier_run(config, Workdir(workdir))
    inputs = gather(config)
    replayed = inputs.replayed and inputs.replayed.drawn(EVALUATED, config.runtime.seed)
    examples = len(inputs.splits.examples["train"]) + (len(inputs.replayed) if inputs.replayed else 0)
    by_size = config.train.batch_tokens < 0  # else how many there are is known once all is tokenised
    steps = config.train.epochs * -(-examples // config.train.batch_size) if by_size else None
    short = _two_steps(inputs.config)
    splits = _some_of(inputs.splits, train=STEPS * short.train.batch_size, seed=config.runtime.seed)
    runtime.import_tensorflow_quietly()
    from tf_finetune.commands.fit import fit

    with tempfile.TemporaryDirectory(prefix="tf_finetune-dry-run-") as folder:
        run = Workdir(folder)
        fit(
            dataclasses.replace(inputs, config=short, splits=splits, replayed=replayed),
            run,
            Stops(),
            num_train_steps=steps,
        )
        classifier = load_classifier(run.best_checkpoint(), short)
        print_table(measure(classifier, splits.examples, source=short.data.source), classifier)
        if has_tensorflow_text():
            export(folder)
        else:
            runtime.warn("no export was tried: tensorflow-text is not installed")
        speed = _examples_per_second(run.metrics)
    print(f"dry run passed in {time.perf_counter() - began:.0f} s; nothing of it is kept")
    if not speed:  # so few examples that there was no second step
        return
    seconds = config.train.epochs * examples / speed
    duration = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    count = f"{steps} steps; " if steps else ""
    print(f"the run itself: {count}at the {speed:.1f} examples/s of one small step, at most about {duration}")


def _two_steps(config: ExperimentConfig) -> ExperimentConfig:
    return dataclasses.replace(
        config,
        train=dataclasses.replace(
            config.train,
            epochs=1,
            log_every_steps=1,
            batch_size=min(config.train.batch_size, EXAMPLES_A_STEP),
            batch_tokens=-1,
        ),
        export=dataclasses.replace(config.export, verify=True, compared_examples=EVALUATED),
    )


def _some_of(splits: Splits, *, train: int, seed: int) -> Splits:
    """A few examples of each split, drawn so that every length has its chance."""
    few = {}
    for name, examples in splits.examples.items():
        few[name] = examples.drawn(train if name == "train" else EVALUATED, seed)
    return dataclasses.replace(splits, examples=few)


def _examples_per_second(metrics: Path) -> float:
    """Of the second step: the first is mostly tracing."""
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return [record["timing"]["examples_per_second"] for record in records if record["split"] == "train"][-1]
