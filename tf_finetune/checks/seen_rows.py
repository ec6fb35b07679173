"""What is kept of every row that is checked: its hash, label, split, place and length, in 29 bytes, and no text."""

from array import array
from typing import TYPE_CHECKING

from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.readers import rows
from tf_finetune.readers.rows import Label, Row

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "validation", "test")


class Places:
    """Where rows stand: a number for what is the same of many ("FILE line"), and a number for the rest.

    A place that ends in no number, such as the file of a folder of classes, is kept as it is.
    """

    def __init__(self):
        self._heads: dict[str, int] = {}
        self._names: list[str] = []
        self._head, self._number = array("I"), array("I")

    def __len__(self) -> int:
        return len(self._head)

    def append(self, where: str) -> None:
        head, _, number = where.rpartition(" ")
        if not number.isdecimal() or number[0] == "0" or len(number) > 9:
            head, number = where, "0"
        if head not in self._heads:
            self._heads[head] = len(self._names)
            self._names.append(head)
        self._head.append(self._heads[head])
        self._number.append(int(number))

    def __getitem__(self, row: int) -> str:
        name, number = self._names[self._head[row]], self._number[row]
        return f"{name} {number}" if number else name


class RowStore:
    """Rows by number, in the order they came.

    Attributes:
        places: where each stands.
        lengths: characters of each text, and of its second text.
        label_names: the distinct labels by their number; empty for regression.
    """

    def __init__(self, problem_type: ProblemType):
        self._is_number = problem_type is ProblemType.REGRESSION
        self._problem_type = problem_type
        self._numbers: dict[Label, int] = {}
        self.label_names: list[Label] = []
        self._keys, self._labels, self._splits = array("q"), array("d"), array("B")
        self.places, self.lengths = Places(), array("I")

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, split: str, row: Row, *, key: int) -> None:
        """Adds a row under the hash that `repeats` shall compare."""
        self._keys.append(key)
        self._labels.append(self._label(row.label))
        self._splits.append(SPLITS.index(split))
        self.places.append(row.where)
        self.lengths.append(min(len(row.text) + len(row.text_pair or ""), 2**32 - 1))

    def split_of(self, row: int) -> str:
        return SPLITS[self._splits[row]]

    def label_of(self, row: int) -> str:
        """The row's label in words."""
        label = self._labels[row]
        return f"{label:g}" if self._is_number else as_words(self.label_names[int(label)])

    @property
    def keys(self) -> "np.ndarray":
        """int64 [rows]"""
        return as_numpy(self._keys)

    @property
    def labels(self) -> "np.ndarray":
        """float64 [rows], numbers of `label_names`, or the labels themselves where they are numbers."""
        return as_numpy(self._labels)

    @property
    def splits(self) -> "np.ndarray":
        """uint8 [rows], numbers of SPLITS."""
        return as_numpy(self._splits)

    def _label(self, label: Label) -> float:
        if self._is_number:
            number = rows.number_of(label)
            return float("nan") if number is None else number
        number = self._numbers.get(label)
        if number is None:  # a spelling that is new may still be of the same classes
            try:
                classes = rows.classes_of(label, self._problem_type, "")
            except InputError:  # `LabelRules` reports it
                classes = ()
            names = label if classes == (label,) else tuple(sorted(classes))
            number = self._numbers.setdefault(names, len(self.label_names))
            if number == len(self.label_names):
                self.label_names.append(names)
            self._numbers[label] = number
        return number


def as_words(label: Label) -> str:
    """A label for people: the names of a list with commas between."""
    return label if isinstance(label, str) else ", ".join(label) or "no class"


def as_numpy(numbers: array) -> "np.ndarray":
    """The same numbers, not copied."""
    import numpy as np  # here, because whoever only reads data needs none of it

    return np.frombuffer(numbers, dtype=np.dtype(numbers.typecode)) if numbers else np.empty(0, numbers.typecode)
