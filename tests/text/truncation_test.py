import numpy as np
import pytest

from tf_finetune.config import Truncation
from tf_finetune.text.truncation import longest_first, truncate, truncate_pair


class TestTruncate:
    @pytest.mark.parametrize("truncation", list(Truncation))
    @pytest.mark.parametrize("length", [2, 9, 10])
    def test_what_fits_stays_whole(self, truncation, length):
        ids = list(range(length))
        assert truncate(ids, max_length=10, truncation=truncation) == ids

    @pytest.mark.parametrize(
        ("truncation", "max_length", "expected"),
        [
            (Truncation.HEAD, 11, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]),
            (Truncation.TAIL, 11, [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
            (Truncation.HEAD_TAIL, 11, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]),
            (Truncation.HEAD, 6, [0, 1, 2, 3, 4, 11]),
            (Truncation.TAIL, 6, [0, 7, 8, 9, 10, 11]),
            (Truncation.HEAD_TAIL, 6, [0, 1, 8, 9, 10, 11]),
            (Truncation.HEAD_TAIL, 5, [0, 8, 9, 10, 11]),  # a quarter of three rounds down to none
            (Truncation.HEAD, 3, [0, 1, 11]),
            (Truncation.TAIL, 3, [0, 10, 11]),
            (Truncation.HEAD_TAIL, 3, [0, 10, 11]),
        ],
    )
    def test_twelve_ids(self, truncation, max_length, expected):
        assert truncate(list(range(12)), max_length=max_length, truncation=truncation) == expected

    @pytest.mark.parametrize("truncation", list(Truncation))
    @pytest.mark.parametrize("max_length", range(3, 40))
    def test_any_length(self, truncation, max_length):
        ids = truncate(list(range(100)), max_length=max_length, truncation=truncation)
        assert len(ids) == len(set(ids)) == max_length
        assert ids == sorted(ids)
        assert (ids[0], ids[-1]) == (0, 99)


class TestLongestFirst:
    @pytest.mark.parametrize(
        ("first", "second", "room", "expected"),
        [
            (3, 4, 7, (3, 4)),  # fits
            (0, 0, 0, (0, 0)),
            (2, 9, 8, (2, 6)),  # only the longer one is shortened
            (9, 2, 8, (6, 2)),
            (6, 9, 8, (4, 4)),  # both
            (6, 9, 7, (3, 4)),  # the odd token goes to the longer
            (9, 6, 7, (4, 3)),
            (9, 9, 7, (3, 4)),  # and of equals to the second
            (4, 9, 7, (3, 4)),  # half of the room, rounded up, is more than half of it
            (3, 9, 7, (3, 4)),
            (0, 9, 7, (0, 7)),  # an empty one
            (9, 9, 1, (0, 1)),  # becomes empty
            (1, 0, 0, (0, 0)),
            (9, 9, 0, (0, 0)),
        ],
    )
    def test_by_hand(self, first, second, room, expected):
        assert longest_first(first, second, room=room) == expected

    def test_like_taking_tokens_off_one_by_one(self):
        for first, second, room in np.random.default_rng(0).integers(0, 60, size=(2000, 3)).tolist():
            kept = [first, second]
            while sum(kept) > room:
                kept[0 if kept[0] > kept[1] else 1] -= 1
            ours = longest_first(first, second, room=room)
            assert sorted(ours) == sorted(kept)


class TestTruncatePair:
    FIRST, SECOND = list(range(10, 20)), list(range(20, 40))

    def cut(self, max_length, truncation, first=FIRST, second=SECOND):
        return truncate_pair(first, second, max_length=max_length, truncation=truncation)

    @pytest.mark.parametrize("truncation", list(Truncation))
    @pytest.mark.parametrize("max_length", [33, 34, 512])
    def test_what_fits_stays_whole(self, truncation, max_length):
        assert self.cut(max_length, truncation) == (self.FIRST, self.SECOND)

    @pytest.mark.parametrize(
        ("truncation", "expected"),
        [
            (Truncation.HEAD, ([10, 11, 12, 13, 14], [20, 21, 22, 23, 24])),
            (Truncation.TAIL, ([15, 16, 17, 18, 19], [35, 36, 37, 38, 39])),
            (Truncation.HEAD_TAIL, ([10, 16, 17, 18, 19], [20, 36, 37, 38, 39])),
        ],
    )
    def test_both_are_shortened(self, truncation, expected):
        assert self.cut(13, truncation) == expected

    def test_the_shorter_one_stays_whole(self):
        assert self.cut(32, Truncation.HEAD_TAIL) == (self.FIRST, [20, 21, 22, 23, *range(25, 40)])

    @pytest.mark.parametrize("truncation", list(Truncation))
    def test_no_room_at_all(self, truncation):
        assert self.cut(3, truncation) == ([], [])

    @pytest.mark.parametrize("truncation", list(Truncation))
    def test_one_token(self, truncation):
        kept = {Truncation.HEAD: 20}.get(truncation, 39)
        assert self.cut(4, truncation) == ([], [kept])

    @pytest.mark.parametrize("truncation", list(Truncation))
    @pytest.mark.parametrize(("first", "second"), [([], SECOND), (FIRST, [])])
    def test_each_part_is_shortened_as_a_text_of_its_own(self, truncation, first, second):
        text = [0, *first, *second, 1]
        alone = truncate(text, max_length=8, truncation=truncation)[1:-1]
        assert self.cut(9, truncation, first, second) == ((alone, []) if first else ([], alone))

    @pytest.mark.parametrize("truncation", list(Truncation))
    def test_any_lengths(self, truncation):
        """As many of each as longest_first says, and those that `truncate` keeps of a text alone."""
        for first, second, room in np.random.default_rng(1).integers(0, 50, size=(500, 3)).tolist():
            texts = list(range(2, 2 + first)), list(range(100, 100 + second))
            kept = longest_first(first, second, room=room)
            expected = [
                truncate([0, *text, 1], max_length=length + 2, truncation=truncation)[1:-1]
                for text, length in zip(texts, kept, strict=True)
            ]
            assert list(self.cut(room + 3, truncation, *texts)) == expected

    def test_arguments_are_left_alone(self):
        first, second = [1, 2, 3], [4, 5, 6]
        self.cut(5, Truncation.HEAD, first, second)
        assert (first, second) == ([1, 2, 3], [4, 5, 6])
