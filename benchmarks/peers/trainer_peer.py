"""What both PyTorch peers share: Hugging Face's `Trainer` under our clock."""

import tempfile
from collections.abc import Callable

import datasets
import protocol
import torch
import transformers

# What a job fixes for both; all else is the Trainer's default (AdamW, clipping at 1.0, linear decay) or the peer's.
SAME_WORK = {
    "weight_decay": 0.01,
    "warmup_steps": 0.1,  # below 1: a share of all steps
    "use_cpu": not torch.cuda.is_available(),
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


class Stopper(transformers.TrainerCallback):
    """Tells the clock of every step, and stops the training when it says so."""

    def __init__(self, clock: protocol.StepClock):
        self.clock = clock

    def on_step_end(self, args, state, control, **kwargs):
        wait_for_device()
        control.should_training_stop = self.clock.step_done()


class AfterEachEpoch(transformers.TrainerCallback):
    """Validates as the peer evaluates."""

    def __init__(self, validate: Callable[[], None], clock: protocol.StepClock):
        self.validate, self.clock = validate, clock

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.clock.out_of_time:
            control.should_training_stop = True
        else:
            self.validate()


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(
    *,
    tokenise: Callable,
    lengths_of: Callable[[transformers.Trainer], list[list[int]]],
    trainer_class: type[transformers.Trainer] = transformers.Trainer,
    collator: Callable | None = None,
    options: dict | None = None,
) -> None:
    """Does the job of the command line.

    Args:
        tokenise: texts -> model inputs, with the tokenizer as first and the job as second argument.
        lengths_of: of a trainer, the lengths of the texts of each batch, in the order of a speed job.
        trainer_class: the Trainer, or one that orders the batches of a speed job.
        collator: of a batch.
        options: of TrainingArguments, beside SAME_WORK.
    """
    job = protocol.read_job()
    transformers.set_seed(job.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.checkpoint)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(job.checkpoint)
    texts, labels = protocol.read_texts(job.train)
    raw = datasets.Dataset.from_dict({"text": texts, "label": labels})
    found = []
    tokenised = protocol.per_second(lambda: found.append(mapped(raw, tokenise, tokenizer, job)), len(texts))
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="trainer_peer_"),
        num_train_epochs=job.epochs,
        per_device_train_batch_size=job.batch_size,
        per_device_eval_batch_size=max(job.batch_size, 8),
        learning_rate=job.learning_rate,
        seed=job.seed,
        bf16=job.precision == "bfloat16",
        **SAME_WORK | (options or {}),
    )
    trainer = trainer_class(
        model=model, args=arguments, train_dataset=found[0], processing_class=tokenizer, data_collator=collator
    )
    trainer.job = job
    result = measure(trainer, job, lambda texts: mapped(texts, tokenise, tokenizer, job), lengths_of)
    protocol.print_result({"tokenised_per_second": tokenised, **result})


def mapped(raw: datasets.Dataset, tokenise: Callable, tokenizer, job: protocol.Job) -> datasets.Dataset:
    return raw.map(lambda rows: tokenise(tokenizer, job, rows["text"]), batched=True)


def measure(trainer: transformers.Trainer, job: protocol.Job, map_texts: Callable, lengths_of: Callable) -> dict:
    batches = lengths_of(trainer)
    clock = protocol.StepClock(job, [len(batch) for batch in batches], [max(batch) for batch in batches])
    trainer.add_callback(Stopper(clock))
    texts, labels = protocol.read_texts(job.validation)
    if job.for_speed:
        output = trainer.train()
        result = {"first_step_s": clock.first_step_s, **clock.speed(), "peak_bytes": protocol.peak_bytes()}
        texts = protocol.evenly(texts, job.evaluation_examples)
        asked = map_texts(datasets.Dataset.from_dict({"text": texts, "label": [0] * len(texts)}))
        evaluated = protocol.per_second_when_warm(lambda: trainer.predict(asked), len(texts))
        return {**result, "loss": output.training_loss, "evaluated_per_second": evaluated}
    asked = map_texts(datasets.Dataset.from_dict({"text": texts, "label": labels}))
    validations = protocol.Validations(job)

    def validate() -> None:
        predicted = trainer.predict(asked)
        validations.add(predicted.predictions, predicted.label_ids)

    trainer.add_callback(AfterEachEpoch(validate, clock))
    trainer.train()
    return {**validations.result(), "peak_bytes": protocol.peak_bytes()}
