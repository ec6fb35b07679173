"""The packaged movie reviews."""

import tarfile
from collections.abc import Iterator

from tf_finetune import packages
from tf_finetune.readers.rows import OnFault, Row

REVIEWS_ARCHIVE = "hutto_ICWSM_2014.tar.gz"
REVIEWS_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def packaged_reviews(on_fault: OnFault) -> Iterator[Row]:
    """Sentences of movie reviews rated by people (Hutto and Gilbert 2014); the sign of the mean rating is the label.

    Args:
        on_fault: not called; a checksum says that there is no fault.

    Raises:
        InputError: the package that carries them cannot be had.
    """
    path = packages.fetch("vaderSentiment==2.5", source_archive=True)
    with tarfile.open(path) as outer:
        inner = outer.extractfile(f"vaderSentiment-2.5/additional_resources/{REVIEWS_ARCHIVE}")
        with tarfile.open(fileobj=inner) as archive:
            content = archive.extractfile(REVIEWS_FILE).read().decode("utf-8")
    seen = set()
    lines = content.strip().split("\r\n")  # not splitlines(), which also splits at rarer separators
    for number, line in enumerate(lines, 1):
        _, rating, text = line.split("\t")
        if float(rating) != 0 and text not in seen:
            seen.add(text)
            yield Row(text, "positive" if float(rating) > 0 else "negative", where=f"reviews line {number}")
