"""A random tiny model on some of the packaged reviews: seconds, to see that it all runs. It learns nothing much.

tf-finetune train --config=smoke --workdir=runs/smoke

18 s on 2 cores of an AMD EPYC, nearly all of it start-up; accuracy stays near 50.
"""

from tf_finetune.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.model.checkpoint = "random-tiny"
    config.data.max_examples = 256
    config.train.epochs = 1
    config.train.log_every_steps = 4
    return config
