"""A number instead of a class: what people rated the packaged movie reviews, from -4 to 4, with the packaged MiniLM.

tf-finetune train --config=review_ratings --workdir=runs/ratings

Measured with the ratings halved: the mean squared error on validation fell from 0.92 to 0.26 in three epochs, and the
sign was right for 86.7% of the sentences. As it stands it has neither been timed nor measured.
"""

from tf_finetune.config import ExperimentConfig, ProblemType


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.model.problem_type = ProblemType.REGRESSION
    config.data.label_column = "rating"
    config.optimizer.learning_rate = 1e-4
    config.train.best_metric = "spearman"
    return config
