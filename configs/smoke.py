"""A random tiny model on some of the packaged reviews: seconds, to see that it all runs. It learns nothing much.

tf-finetune train --config=smoke --workdir=runs/smoke
"""

from tf_finetune.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.model.checkpoint = "random-tiny"
    config.data.max_examples = 256
    config.train.epochs = 1
    config.train.log_every_steps = 4
    return config
