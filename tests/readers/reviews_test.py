import io
import tarfile

import pytest

from tf_finetune import packages
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.readers import reviews
from tf_finetune.readers.rows import Columns


def test_packaged_reviews_by_their_rule(tmp_path, monkeypatch):
    ratings = [1.5, -0.1, 0.0] * 100
    lines = [f"{i}\t{rating}\ttext \u2028 {i}" for i, rating in enumerate(ratings)]
    lines += ["900\t3\ttext \u2028 1"]  # a text that was there already, rated otherwise
    inner = _archive({reviews.REVIEWS_FILE: "\r\n".join(lines).encode() + b"\r\n"})
    path = tmp_path / "vaderSentiment-2.5.tar.gz"
    path.write_bytes(_archive({f"vaderSentiment-2.5/additional_resources/{reviews.REVIEWS_ARCHIVE}": inner}))
    monkeypatch.setattr(packages, "fetch", lambda requirement, *, source_archive: path)
    splits = sources.load("reviews")
    assert splits.label_names == ("negative", "positive")
    found = {
        text: label for split in splits.examples.values() for text, label in zip(split.texts, split.labels, strict=True)
    }
    assert found == {f"text \u2028 {i}": int(rating > 0) for i, rating in enumerate(ratings) if rating}
    assert sum(len(split) for split in splits.examples.values()) == 200


@pytest.mark.parametrize(
    ("column", "default"), [("text", "text"), ("label", "label"), ("text_pair", ""), ("weight", "")]
)
def test_reviews_have_no_columns_to_choose(column, default):
    expected = f"reviews has no columns to choose from, in data.{column}_column, expected '{default}', got 'body'"
    with pytest.raises(InputError, match=expected):
        sources.load("reviews", columns=Columns(**{column: "body"}))


def _archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
