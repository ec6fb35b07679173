import io
import tarfile

import pytest

from tf_finetune import packages
from tf_finetune.config import ProblemType
from tf_finetune.data import sources
from tf_finetune.errors import InputError
from tf_finetune.readers import reviews
from tf_finetune.readers.rows import Columns

RATINGS = [1.5, -0.1, 0.0] * 100


@pytest.fixture(params=list(reviews.FILES))
def source(request, tmp_path, monkeypatch):
    """Each of the sources, with texts of our own in the archive that the package carries."""
    lines = [f"{i}\t{rating}\ttext \u2028 {i}" for i, rating in enumerate(RATINGS)]
    lines += ["900\t3\ttext \u2028 1"]  # a text that was there already, rated otherwise
    inner = _archive({reviews.FILES[request.param]: "\r\n".join(lines).encode() + b"\r\n"})
    path = tmp_path / "vaderSentiment-2.5.tar.gz"
    path.write_bytes(_archive({f"vaderSentiment-2.5/additional_resources/{reviews.ARCHIVE}": inner}))
    monkeypatch.setattr(packages, "fetch", lambda requirement, *, source_archive: path)
    return request.param


def test_packaged_reviews_by_their_rule(source):
    splits = sources.load(source)
    assert splits.label_names == ("negative", "positive")
    assert _labels(splits) == {f"text \u2028 {i}": int(rating > 0) for i, rating in enumerate(RATINGS) if rating}


def test_the_rating_itself(source):
    splits = sources.load(source, columns=Columns(label="rating"), problem_type=ProblemType.REGRESSION)
    expected = {f"text \u2028 {i}": pytest.approx(rating) for i, rating in enumerate(RATINGS)}
    assert _labels(splits) == expected
    splits = sources.load(source)  # what is kept of the one is not taken for the other
    assert splits.label_names == ("negative", "positive")


@pytest.mark.parametrize("name", reviews.FILES)
@pytest.mark.parametrize(("column", "default"), [("text", "text"), ("text_pair", ""), ("weight", "")])
def test_reviews_have_no_columns_to_choose(name, column, default):
    expected = f"^{name} has no columns to choose from, in data.{column}_column, expected '{default}', got 'body'"
    with pytest.raises(InputError, match=expected):
        sources.load(name, columns=Columns(**{column: "body"}))


def test_the_label_is_one_of_two():
    expected = (
        r"no such column of product_reviews, in data.label_column, expected 'label' .* or 'rating' .* got 'stars'"
    )
    with pytest.raises(InputError, match=expected):
        sources.load("product_reviews", columns=Columns(label="stars"))


def _labels(splits):
    """The label of each text of all splits, which have no text in common."""
    found = [pair for split in splits.examples.values() for pair in zip(split.texts, split.labels.ravel(), strict=True)]
    assert len(found) == len(dict(found))
    return dict(found)


def _archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
