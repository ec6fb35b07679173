import csv

import pytest

from tf_finetune import csv_files
from tf_finetune.csv_files import safe_cell


def read(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file, strict=True))


class TestSafeCell:
    @pytest.mark.parametrize("text", ["good", "", "a=b", "3 + 4", "it's", '"quoted"', "two\nlines", "a\tb", "élan 好"])
    def test_what_is_harmless_stays(self, text):
        assert safe_cell(text) == text

    @pytest.mark.parametrize(
        "text",
        ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\xa0=1", "＝1", '=HYPERLINK("a")', "-", "\tplain"],
    )
    def test_a_formula_is_text(self, text):
        assert safe_cell(text) == f"'{text}"

    @pytest.mark.parametrize(
        ("text", "safe"),
        [
            ("x;=1", "x;'=1"),
            ("x; -1", "x; '-1"),
            ("x\t+1", "x\t'+1"),
            ("x|@A1", "x|'@A1"),
            ("x\n=1", "x\n'=1"),
            ("\t=1", "'\t'=1"),
            ("\n=1", "'\n'=1"),
        ],
    )
    def test_a_formula_behind_what_parts_cells_elsewhere(self, text, safe):
        assert safe_cell(text) == safe

    @pytest.mark.parametrize("text", ["\r=1", "\x00=1", "\x00 =1", "\rplain", "\u202e=1"])
    def test_a_formula_behind_what_is_invisible_does_not_come_first(self, text):
        assert safe_cell(text)[0] in "'\\"

    @pytest.mark.parametrize(
        ("text", "visible"),
        [
            ("a\x00b", r"a\x00b"),
            ("a\x1b[31mb", r"a\x1b[31mb"),
            ("a\x85b", r"a\x85b"),
            ("abc\u202edcb", r"abc\u202edcb"),
            ("\ufeffa", r"\ufeffa"),
            ("a\u2028b", r"a\u2028b"),
            ("a\ud800b", r"a\ud800b"),
            ("a\rb", r"a\x0db"),
            ("a\r\nb", "a\nb"),
        ],
    )
    def test_what_is_invisible_is_seen(self, text, visible):
        assert safe_cell(text) == visible


class TestWriteRows:
    def test_round_trip(self, tmp_path):
        texts = ['a "quote", and a comma', "two\nlines", "'", "élan 好", "", "a;b\tc"]
        csv_files.write_rows(tmp_path / "a.csv", ["rank", "text"], [[n, text] for n, text in enumerate(texts)])
        assert read(tmp_path / "a.csv") == [["rank", "text"], *([str(n), text] for n, text in enumerate(texts))]

    def test_every_text_is_quoted_and_no_number(self, tmp_path):
        csv_files.write_rows(tmp_path / "a.csv", ["a", "b"], [["x", -0.5], ["-0.5", 2]])
        assert (tmp_path / "a.csv").read_text(encoding="utf-8-sig") == '"a","b"\n"x",-0.5\n"\'-0.5",2\n'

    def test_excel_knows_it_for_utf8(self, tmp_path):
        csv_files.write_rows(tmp_path / "a.csv", ["é"], [])
        assert (tmp_path / "a.csv").read_bytes() == b"\xef\xbb\xbf" + '"é"\n'.encode()

    def test_a_failure_leaves_the_old_file(self, tmp_path):
        csv_files.write_rows(tmp_path / "a.csv", ["a"], [["old"]])

        def rows():
            yield ["new"]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            csv_files.write_rows(tmp_path / "a.csv", ["a"], rows())
        assert read(tmp_path / "a.csv") == [["a"], ["old"]]
        assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
