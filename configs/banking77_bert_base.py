"""Many classes: which of 77 things a bank's customer asks for. Banking77 (Casanueva et al. 2020) with BERT-base.

tf-finetune train --config=banking77_bert_base --workdir=runs/banking

About 10,000 questions for training, a tenth of them for validation, and 3,000 for the test. With a hundred examples a
class it takes more epochs than two classes do. The best checkpoint is the one of the best F1, the mean over the
classes. Neither time nor score has been measured here.
"""

from tf_finetune.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.model.checkpoint = "google-bert/bert-base-uncased"
    config.data.source = "hub:mteb/banking77"
    config.data.label_column = "label_text"
    config.optimizer.learning_rate = 4e-5
    config.train.epochs = 8
    config.train.batch_size = 16
    config.train.best_metric = "f1"
    config.train.early_stopping_patience = 2
    return config
