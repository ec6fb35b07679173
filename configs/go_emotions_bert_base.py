"""Several labels a text: which of 28 emotions a comment shows. GoEmotions (Demszky et al. 2020) with BERT-base.

tf-finetune train --config=go_emotions_bert_base --workdir=runs/emotions

43,410 comments for training. The labels are lists, so that each emotion is a yes or no of its own. The best checkpoint
is the one of the best macro F1, to which rare emotions count as much as common ones. Neither time nor score has been
measured here; the paper reports a macro F1 of 46.
"""

from tf_finetune.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.model.checkpoint = "google-bert/bert-base-uncased"
    config.data.source = "hub:google-research-datasets/go_emotions:simplified"
    config.data.label_column = "labels"
    config.optimizer.learning_rate = 5e-5
    config.train.epochs = 4
    config.train.batch_size = 16
    config.train.best_metric = "f1_macro"
    return config
