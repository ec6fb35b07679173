"""What tests put on the stand-in for the hub: datasets laid out as the hub's own tools write them."""

import io

import pyarrow
from pyarrow import parquet

CARD = """---
dataset_info:
{infos}
configs:
{configs}
---
"""
INFO = """- config_name: {name}
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
"""


def parquet_file(rows: list[tuple[str, int]]) -> bytes:
    """Texts and classes by number."""
    texts, labels = zip(*rows, strict=True)
    table = pyarrow.table({"text": list(texts), "label": pyarrow.array(labels, pyarrow.int64())})
    content = io.BytesIO()
    parquet.write_table(table, content)
    return content.getvalue()


def dataset_card(**configs: dict[str, object]) -> bytes:
    """README.md of a dataset: config name -> its splits."""
    infos = "".join(INFO.format(name=name) for name in configs)
    return CARD.format(infos=infos.rstrip(), configs=config_lines(configs)).encode()


def config_lines(configs: dict[str, object]) -> str:
    """What a card says of where each config has its splits."""
    lines = []
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {name}/{split}-*" for split in splits]
    return "\n".join(lines)


def dataset_files(splits: dict[str, list[tuple[str, int]]]) -> dict[str, bytes]:
    """The files of a dataset with one config, laid out as stanfordnlp/imdb is."""
    files = {f"plain_text/{split}-00000-of-00001.parquet": parquet_file(rows) for split, rows in splits.items()}
    return {"README.md": dataset_card(plain_text=splits), **files}


def imdb_files(train: int = 1100, test: int = 1100) -> dict[str, bytes]:
    """stanfordnlp/imdb in small: sorted by class, as the real one is, and a split without labels."""

    def reviews(size: int) -> list[tuple[str, int]]:
        return [(f"film {i} is {'good' if i >= size // 2 else 'bad'}", int(i >= size // 2)) for i in range(size)]

    unsupervised = [(f"film {i}", -1) for i in range(30)]
    return dataset_files({"train": reviews(train), "test": reviews(test), "unsupervised": unsupervised})
