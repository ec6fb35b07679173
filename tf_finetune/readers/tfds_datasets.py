"""TensorFlow Datasets: `tfds:imdb_reviews`, `tfds:glue/sst2`, `tfds:imdb_reviews/plain_text:1.0.0`."""

import contextlib
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tf_finetune import runtime
from tf_finetune.errors import InputError
from tf_finetune.readers import catalogs
from tf_finetune.readers.rows import Columns, Found, check_columns

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

PREFIX = "tfds:"
# tfds also takes keyword arguments and namespaces, neither of which names a version of a dataset.
NAME = re.compile(r"[A-Za-z]\w*(/[\w.+-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?")


def read(name: str, columns: Columns) -> Found:
    """The rows of a dataset, downloaded and prepared where tfds keeps its data unless they are there.

    Preparing and reading import TensorFlow. The files are tfds's default TFRecords, so that the user's own
    `tfds.load` shares them: it cannot read ArrayRecord, and 4.9.10 loses rows when it writes Parquet.

    Args:
        name: as `tfds.builder` takes it.
        columns: the features; a label may be a class, a sequence of classes, a name or a number.

    Raises:
        InputError: no such dataset, config, version or feature, or it cannot be had.
    """
    import tensorflow_datasets as tfds

    runtime.import_tensorflow_quietly()
    place, builder = PREFIX + name, _builder(name)
    features = builder.info.features
    check_columns(columns.names, list(features), place)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            builder.download_and_prepare()
        except Exception as error:  # a download of anybody's: whatever it raises is for the user to see
            got = catalogs.first_line(error)
            raise InputError("tfds cannot prepare the dataset", where=place, got=got) from error
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    label = features[columns.label]
    label = getattr(label, "feature", label)  # of a sequence
    numbered = isinstance(label, tfds.features.ClassLabel) and label.num_classes
    class_names = [label.int2str(number) for number in range(label.num_classes)] if numbered else None
    return catalogs.found(place, sizes, lambda split: _values(builder, split, columns.names), columns, class_names)


def pinned(name: str) -> str:
    """`tfds:NAME[/CONFIG]:VERSION`, the config and version that a name stands for in this tfds.

    Raises:
        InputError: no such dataset, config or version.
    """
    builder = _builder(name)
    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    return f"{PREFIX}{builder.name}{config}:{builder.version}"


def _builder(name: str) -> "DatasetBuilder":
    import tensorflow_datasets as tfds

    place, dataset = PREFIX + name, re.split("[/:]", name)[0]
    if not NAME.fullmatch(name):
        expected = "tfds:NAME, tfds:NAME/CONFIG, either with :VERSION"
        raise InputError("not a name of TensorFlow Datasets", where="data.source", expected=expected, got=place)
    try:
        return tfds.builder(name)
    except tfds.core.DatasetNotFoundError:
        nearest = difflib.get_close_matches(dataset, tfds.list_builders(with_community_datasets=False), n=1, cutoff=0)
        expected = f"one like {nearest[0]}"
        raise InputError("no such dataset in tfds", where="data.source", expected=expected, got=dataset) from None
    except Exception as error:  # of a dataset's own code, and tfds has no classes for its own
        configs = ", ".join(list(tfds.builder_cls(dataset).builder_configs)[:20])
        expected = f"one of its configs {configs}" if configs and "BuilderConfig" in str(error) else None
        got = catalogs.first_line(error)
        raise InputError("tfds cannot make the dataset", where=place, expected=expected, got=got) from None


def _values(builder: "DatasetBuilder", split: str, names: Sequence[str]) -> Iterator[catalogs.Values]:
    import tensorflow_datasets as tfds

    decoders = tfds.decode.PartialDecoding(dict.fromkeys(names, True))
    for example in tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders)):
        values = (example[name] for name in names)
        yield [value.tolist() if hasattr(value, "tolist") else value for value in values]
