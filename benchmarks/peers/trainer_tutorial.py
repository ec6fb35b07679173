"""PyTorch as the tutorials show it: `Trainer` with its defaults, every text padded to the longest there may be."""

import trainer_peer


def tokenise(tokenizer, job, texts: list[str]) -> dict:
    return tokenizer(texts, padding="max_length", truncation=True, max_length=job.max_length)


def lengths_of(trainer) -> list[list[int]]:
    size, job = len(trainer.train_dataset), trainer.job
    return [[job.max_length] * min(job.batch_size, size - start) for start in range(0, size, job.batch_size)]


if __name__ == "__main__":
    trainer_peer.run(tokenise=tokenise, lengths_of=lengths_of)
