"""What the well-known PyTorch tutorial on IMDB does: 1,000 shuffled reviews, 800 to train on and 200 to validate on.

tf-finetune train --config=imdb_tutorial --workdir=runs/tutorial

The tutorial warms up for 500 steps and trains for 300, so its learning rate only ever rises; `train` warns of it.
What was meant is --config.optimizer.warmup_steps=0, which warms up for a tenth of the steps. Texts are padded to the
longest of their batch, not to 512. Time and score have not been measured here.
"""

from tf_finetune.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.model.checkpoint = "google-bert/bert-base-uncased"
    config.data.source = "imdb"
    config.data.max_examples = 1000
    config.data.validation_examples = 200
    config.data.max_length = 512
    config.optimizer.learning_rate = 5e-5
    config.optimizer.weight_decay = 0.01
    config.optimizer.warmup_steps = 500
    config.train.epochs = 3
    config.train.batch_size = 8
    config.train.eval_batch_size = 16
    config.train.log_every_steps = 10
    return config
