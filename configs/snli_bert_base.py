"""Text pairs: does a premise entail its hypothesis, contradict it, or neither? SNLI with BERT-base.

tf-finetune train --config=snli_bert_base --workdir=runs/snli

550,000 pairs for training; those without an agreed label (-1 on the hub) are left out. On a CPU expect days:
--config.data.max_examples=20000 is a beginning. Neither time nor score has been measured here.
"""

from tf_finetune.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    config = ExperimentConfig()
    config.model.checkpoint = "google-bert/bert-base-uncased"
    config.data.source = "hub:stanfordnlp/snli"
    config.data.text_column = "premise"
    config.data.text_pair_column = "hypothesis"
    config.optimizer.learning_rate = 3e-5
    config.train.validate_every_steps = 5000
    return config
