"""The embedded default: a real BERT (MiniLM, 22.7M parameters) on real movie-review sentences.

tf-finetune train --config=reviews_minilm --workdir=runs/reviews
"""

from tf_finetune.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.optimizer.learning_rate = 1e-4
    return config
