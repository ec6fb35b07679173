"""All of IMDB with BERT-base: 25,000 reviews for training (a tenth of them for validation), 25,000 for the test.

tf-finetune train --config=imdb_bert_base --workdir=runs/imdb

Expect hours on a CPU and less than an hour on a GPU with bfloat16; neither has been timed here, nor the score.
`--dry_run` says what a step takes on your machine. Sun et al. (2019) report 94.6 for head and tail at 512 tokens.
"""

from tf_finetune.config import ExperimentConfig, Truncation


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.model.checkpoint = "google-bert/bert-base-uncased"
    config.data.source = "imdb"
    config.data.max_length = 512
    config.data.truncation = Truncation.HEAD_TAIL
    config.optimizer.learning_rate = 2e-5
    config.train.epochs = 3
    config.train.batch_size = 16
    config.train.eval_batch_size = 32
    return config
