import pytest

pytest.importorskip("tensorflow_text")

from tf_finetune.bert.model import TFBertForSequenceClassification  # noqa: E402
from tf_finetune.bert.tiny import write_random_checkpoint  # noqa: E402
from tf_finetune.config import Truncation  # noqa: E402
from tf_finetune.evaluation.classifier import Classifier  # noqa: E402
from tf_finetune.serving.export import describe, save_model  # noqa: E402
from tf_finetune.serving.questions import Questions, Task, hostile_texts  # noqa: E402
from tf_finetune.text.tokenizer import Tokenizer  # noqa: E402


def tiny_classifier(folder, **options):
    """A model of two layers with random weights; options are those of `from_pretrained`."""
    write_random_checkpoint(folder)
    model = TFBertForSequenceClassification.from_pretrained(folder, new_head=True, **options)
    return Classifier(model, Tokenizer(folder), max_length=64, truncation=Truncation.HEAD)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    return tiny_classifier(tmp_path_factory.mktemp("tiny"), id2label=["bad", "good", "neither"])


@pytest.fixture(scope="session")
def task(classifier):
    return Task.of(classifier, pairs=False)


@pytest.fixture(scope="session")
def hostile(classifier):
    return Questions.of(classifier, hostile_texts(pairs=False))


@pytest.fixture(scope="session")
def exported(classifier, task, hostile, tmp_path_factory):
    """A whole export; tests copy it before they damage it."""
    folder = tmp_path_factory.mktemp("export") / "1"
    folder.mkdir()
    save_model(classifier, folder)
    describe(folder, task, hostile, checkpoint={"files": {}})
    return folder
