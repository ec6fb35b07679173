import numpy as np
import pytest
from in_graph_cases import ALL_SWITCHES, UNCASED, Switches, normalizer

from tf_finetune.text.character_table import BARRIER, BLOCK, CODE_BITS, NOTHING, UNREADABLE, character_table


def becomes(character: str, switches: Switches = UNCASED) -> list:
    table = character_table(**switches._asdict())
    code = ord(character)
    entries = table.entries[table.block_of[code // BLOCK] * BLOCK + code % BLOCK].tolist()
    return [character if entry == -3 else chr(entry) for entry in entries if entry not in (NOTHING, BARRIER)]


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        ("a", "a"),
        ("É", "e"),
        ("\u0301", ""),  # an accent
        ("\u200b", ""),  # a control character
        ("\u3000", " "),
        ("!", " ! "),
        ("\u037e", " ; "),  # a question mark that is taken apart into a semicolon
        ("中", " 中 "),
        ("\uf91d", " 欄 "),
        ("한", "\u1112\u1161\u11ab"),
        ("\U0004fffe", "\x11"),  # the stand-in
    ],
)
def test_by_hand(character, expected):
    assert "".join(becomes(character)) == expected


def test_the_switches_change_what_they_say():
    assert becomes("É", Switches(True, strip_accents=False)) == ["é"]
    assert becomes("É", Switches(False, strip_accents=True)) == ["E"]
    assert becomes("İ", Switches(True, strip_accents=False)) == ["i", "\u0307"]
    assert becomes("中", Switches(True, tokenize_chinese_chars=False)) == ["中"]
    assert becomes("\u200b", Switches(True, clean_text=False)) == ["\u200b"]


def test_marks_that_stay_have_an_order():
    table = character_table(**UNCASED._asdict())
    order = {
        entry & (1 << CODE_BITS) - 1: entry >> CODE_BITS for entry in table.entries[table.entries > 1 << CODE_BITS]
    }
    assert order[0x302E] == order[0x302F] < order[0x1D16D]  # 224 and 226 in Unicode
    assert ord("a") not in order


def test_without_accents_dropped_nothing_is_sorted():
    table = character_table(**Switches(True, strip_accents=False)._asdict())
    assert table.entries.max() < 1 << CODE_BITS
    assert not (table.entries == BARRIER).any()


@pytest.mark.parametrize("switches", ALL_SWITCHES[::5], ids=str)
def test_small_enough_for_a_graph(switches):
    table = character_table(**switches._asdict())
    assert table.block_of.dtype == table.entries.dtype == np.int32
    assert table.block_of.nbytes + table.entries.nbytes < 450_000


def test_planes_that_are_not_asked_for_stay_as_they_are():
    """Fails when Unicode and `tokenizers` come to have characters there."""
    characters = "".join(chr(code) for code in range(0x40000, 0xE0000, 7))
    assert normalizer(UNCASED).normalize_str(characters) == characters


def test_unreadable_characters():
    assert len(UNREADABLE) == 2 + 66
