"""Raw text to probabilities on real weights and real reviews, against PyTorch and the Hugging Face tokenizer."""

import numpy as np
import pytest
from export_parity import export_answers, pytorch_answers, test_reviews

from tf_finetune.bert.model import TFBertForSequenceClassification
from tf_finetune.config import Truncation
from tf_finetune.evaluation.classifier import Classifier
from tf_finetune.serving.export import save_model
from tf_finetune.text.tokenizer import Tokenizer

test_reviews.__test__ = False


def test_every_test_review_is_answered_as_pytorch_does(packaged_checkpoint, tmp_path):
    pytest.importorskip("torch", reason="the comparison with PyTorch needs the `parity` extra")
    model = TFBertForSequenceClassification.from_pretrained(
        packaged_checkpoint, id2label=["negative", "positive"], new_head=True
    )
    model.classifier.kernel.assign(model.classifier.kernel * 20)  # a head that decides, as a trained one does
    tokenizer, checkpoint, saved_model = Tokenizer(packaged_checkpoint), tmp_path / "checkpoint", tmp_path / "1"
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    saved_model.mkdir()
    save_model(Classifier(model, tokenizer, max_length=128, truncation=Truncation.HEAD), saved_model)
    texts = test_reviews()
    labels, probabilities = export_answers(saved_model, texts)
    expected_labels, expected = pytorch_answers(checkpoint, texts, max_length=128)
    assert len(texts) == 1095
    assert expected.std() > 0.1
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert labels == expected_labels
