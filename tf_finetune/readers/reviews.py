"""The packaged reviews: sentences of movie and of product reviews, rated by people (Hutto and Gilbert 2014)."""

import dataclasses
import tarfile
from collections.abc import Iterator

from tf_finetune import packages
from tf_finetune.errors import InputError
from tf_finetune.readers.rows import TEXT_AND_LABEL, Columns, OnFault, Reader, Row, refuse_columns

PACKAGE = "vaderSentiment==2.5"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
# Source: its file in the archive.
FILES = {
    "reviews": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "product_reviews": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
}
# The label column that is not the sign.
RATING = "rating"


def packaged_reviews(source: str = "reviews", columns: Columns = TEXT_AND_LABEL) -> Reader:
    """The rows of a source of FILES, of texts that are there twice the first.

    Args:
        source: one of FILES.
        columns: the default ones, where the sign of the mean rating is the label, "positive" or "negative", and rows
            rated 0 are left out; or `label=RATING`: the mean rating itself, from -4 to 4.

    Raises:
        InputError: other columns; from the reader, that the package that carries the texts cannot be had.
    """
    is_number = columns.label == RATING
    refuse_columns(source, dataclasses.replace(columns, label=TEXT_AND_LABEL.label))
    if not is_number and columns.label != TEXT_AND_LABEL.label:
        expected = f"'{TEXT_AND_LABEL.label}' (positive or negative) or '{RATING}' (a number from -4 to 4)"
        raise InputError(
            f"no such column of {source}", where="data.label_column", expected=expected, got=repr(columns.label)
        )

    def rows(on_fault: OnFault) -> Iterator[Row]:  # noqa: ARG001 - a checksum says that there is no fault
        seen = set()
        # Not splitlines(), which also splits at rarer separators.
        for number, line in enumerate(_content(FILES[source]).strip().split("\r\n"), 1):
            _, rating, text = line.split("\t")
            if (is_number or float(rating) != 0) and text not in seen:
                seen.add(text)
                label = rating if is_number else "positive" if float(rating) > 0 else "negative"
                yield Row(text, label, where=f"{source} line {number}")

    return rows


def _content(file: str) -> str:
    path = packages.fetch(PACKAGE, source_archive=True)
    with tarfile.open(path) as outer:
        inner = outer.extractfile(f"vaderSentiment-2.5/additional_resources/{ARCHIVE}")
        with tarfile.open(fileobj=inner) as archive:
            return archive.extractfile(file).read().decode("utf-8")
