"""PyTorch at its best in the `Trainer`: bfloat16, batches of like length, fused AdamW, scaled dot product attention.

torch.compile is left out: it compiles anew for many lengths, which takes minutes on a CPU.
"""

import protocol
import trainer_peer
import transformers


def tokenise(tokenizer, job, texts: list[str]) -> dict:
    # A saved tokenizer may have padding baked in.
    return tokenizer(texts, padding=False, truncation=True, max_length=job.max_length)


class Ordered(transformers.Trainer):
    """Orders the batches of a speed job so that any beginning of them speaks for the epoch."""

    drawn: list[int] | None = None

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if not self.job.for_speed:
            return sampler
        if self.drawn is None:
            self.drawn = [index for batch in self.spread(list(sampler), sampler.lengths) for index in batch]
        return self.drawn

    def spread(self, indices: list[int], lengths: list[int]) -> list[list[int]]:
        size = self.job.batch_size
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        # The remainder stays last: the loader cuts the list into batches again.
        remainder = [batches.pop()] if len(batches[-1]) < size else []
        order = protocol.spread_order([max(lengths[i] for i in batch) for batch in batches])
        return [batches[i] for i in order] + remainder


def lengths_of(trainer: Ordered) -> list[list[int]]:
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    indices, size = list(trainer._get_train_sampler()), trainer.job.batch_size
    return [[lengths[i] for i in indices[start : start + size]] for start in range(0, len(indices), size)]


if __name__ == "__main__":
    trainer_peer.run(
        tokenise=tokenise,
        lengths_of=lengths_of,
        trainer_class=Ordered,
        options={"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"},
    )
