import gzip
import json

import pytest

from tf_finetune.data import tables
from tf_finetune.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def rows(path, text_column="text", label_column="label"):
    return list(tables.rows(path, text_column, label_column))


TWO = [("fine", "b"), ("bad", "a")]


class TestCsv:
    @pytest.mark.parametrize("name", ["data.csv", "DATA.CSV", "data.v2.csv"])
    def test_rows(self, write, name):
        assert rows(write(name, b"text,label\nfine,b\nbad,a\n")) == TWO

    def test_tsv_quotes_are_text(self, write):
        path = write("data.tsv", b'text\tlabel\n"Great" film\tx\nsaid "no\ty\n')
        assert rows(path) == [('"Great" film', "x"), ('said "no', "y")]

    def test_tsv_commas_are_text(self, write):
        assert rows(write("data.tsv", b"text\tlabel\na, b\tx\nc\ty\n")) == [("a, b", "x"), ("c", "y")]

    def test_a_text_may_be_long(self, write):
        assert len(rows(write("data.csv", b"text,label\n" + b"x" * 200_000 + b",a\n"))[0][0]) == 200_000

    def test_byte_order_mark(self, write):
        assert rows(write("data.csv", b"\xef\xbb\xbftext,label\nfine,b\nbad,a\n")) == TWO

    @pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["windows", "old_mac"])
    def test_other_line_ends(self, write, end):
        assert rows(write("data.csv", end.join((b"text,label", b"fine,b", b"bad,a", b"")))) == TWO

    def test_no_line_end_at_the_end(self, write):
        assert rows(write("data.csv", b"text,label\nfine,b\nbad,a")) == TWO

    def test_quoted_newline_comma_and_quote(self, write):
        path = write("data.csv", b'text,label\n"one,\r\ntwo ""three""",b\nbad,a\n')
        assert rows(path) == [('one,\r\ntwo "three"', "b"), ("bad", "a")]

    def test_rare_line_separators_stay_in_the_text(self, write):
        path = write("data.csv", "text,label\na\u2028b\x85c\x0bd,b\nbad,a\n".encode())
        assert rows(path)[0] == ("a\u2028b\x85c\x0bd", "b")

    def test_columns_by_name_in_any_order(self, write):
        assert rows(write("data.csv", b"id,stars,review\n7,b,fine\n8,a,bad\n"), "review", "stars") == TWO

    def test_empty_lines_are_skipped(self, write):
        assert rows(write("data.csv", b"text,label\n\nfine,b\n\nbad,a\n\n")) == TWO

    def test_labels_are_stripped_and_texts_are_not(self, write):
        assert rows(write("data.csv", b"text,label\n fine , b \n")) == [(" fine ", "b")]

    def test_labels_keep_their_spelling(self, write):
        assert rows(write("data.csv", b"text,label\na,01\nb,1.0\nc,NA\n")) == [("a", "01"), ("b", "1.0"), ("c", "NA")]

    @pytest.mark.parametrize(("row", "got"), [(b"one,two,a", 3), (b"one", 1)], ids=["more", "fewer"])
    def test_wrong_number_of_columns(self, write, row, got):
        path = write("data.csv", b"text,label\nfine,b\n" + row + b"\n")
        with pytest.raises(InputError, match=rf"wrong number of columns, in .*data\.csv line 3, expected 2, got {got}"):
            rows(path)

    @pytest.mark.parametrize("label", [b"", b"  "])
    def test_missing_label(self, write, label):
        path = write("data.csv", b'text,label\n"two\nlines",b\nbad,' + label + b"\n")
        with pytest.raises(InputError, match=r"a label is missing, in .*data\.csv line 4$"):
            rows(path)

    @pytest.mark.parametrize("column", ["text", "label"])
    def test_missing_column(self, write, column):
        path = write("data.csv", b"text,label\n".replace(column.encode(), b"extra") + b"a,b\n")
        expected = rf"no such column, in .*data\.csv, expected a column '{column}', got .*extra"
        with pytest.raises(InputError, match=expected):
            rows(path)

    @pytest.mark.parametrize(
        ("name", "header", "delimiters"),
        [("a.csv", b"text;label", "commas"), ("a.csv", b"text\tlabel", "commas"), ("a.tsv", b"text,label", "tabs")],
    )
    def test_another_delimiter(self, write, name, header, delimiters):
        expected = f"expected a column 'text' and {delimiters} between columns, got {header.decode()}"
        with pytest.raises(InputError, match=" ".join(expected.split())):
            rows(write(name, header + b"\n"))

    def test_empty_file(self, write):
        with pytest.raises(InputError, match="no such column, in .*, expected a column 'text', got an empty file"):
            rows(write("data.csv", b""))

    def test_unclosed_quote(self, write):
        with pytest.raises(InputError, match=r"malformed table, in .*data\.csv line 2, got unexpected end of data"):
            rows(write("data.csv", b'text,label\n"fine,b\n'))

    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
    def test_latin_1(self, write, end):
        path = write("data.csv", end.join((b"text,label", b"fine,a", b"caf\xe9,b", b"")))
        with pytest.raises(InputError, match=r"text is not UTF-8, in .*data\.csv line 3, got byte 0xe9"):
            rows(path)


class TestJsonLines:
    @pytest.mark.parametrize("name", ["data.jsonl", "data.ndjson"])
    def test_rows(self, write, name):
        assert rows(write(name, b'{"text": "fine", "label": "b", "id": 1}\r\n\n{"label": "a", "text": "bad"}')) == TWO

    def test_byte_order_mark(self, write):
        assert rows(write("a.jsonl", b'\xef\xbb\xbf{"text": "fine", "label": "b"}\n')) == TWO[:1]

    @pytest.mark.parametrize(
        ("value", "name"),
        [("1", "1"), ("1.0", "1.0"), ("true", "true"), ("false", "false"), ('" x "', "x"), ("-3", "-3")],
    )
    def test_labels(self, write, value, name):
        assert rows(write("a.jsonl", b'{"text": "t", "label": %s}' % value.encode())) == [("t", name)]

    @pytest.mark.parametrize("rest", [', "label": null', ', "label": NaN', ', "label": ""', ""])
    def test_missing_label(self, write, rest):
        path = write("a.jsonl", ('{"text": "t", "label": 1}\n{"text": "t"' + rest + "}").encode())
        with pytest.raises(InputError, match=r"a label is missing, in .*a\.jsonl line 2$"):
            rows(path)

    @pytest.mark.parametrize("value", ["[1]", '{"a": 1}'])
    def test_unusable_label(self, write, value):
        path = write("a.jsonl", b'{"text": "t", "label": %s}' % value.encode())
        expected = r"a label is not usable, in .*a\.jsonl line 1, expected a name or a whole number, got"
        with pytest.raises(InputError, match=expected):
            rows(path)

    @pytest.mark.parametrize(("value", "got"), [("null", "nothing"), ("7", "7"), ('["a"]', r"\['a'\]")])
    def test_text_that_is_no_string(self, write, value, got):
        path = write("a.jsonl", b'{"text": %s, "label": 1}' % value.encode())
        with pytest.raises(InputError, match=rf"a text is not a string, in .*a\.jsonl line 1, got {got}"):
            rows(path)

    def test_the_first_object_names_the_columns(self, write):
        path = write("a.jsonl", b'{"text": "t", "label": 1}\n')
        with pytest.raises(InputError, match=r"in .*a\.jsonl, expected a column 'body', got text, label"):
            rows(path, "body")

    @pytest.mark.parametrize(
        ("line", "got"), [(b"[1]", r"\[1\]"), (b"fine,b", "'fine,b'"), (b'{"text": ', "Expecting")]
    )
    def test_line_that_is_no_object(self, write, line, got):
        path = write("a.jsonl", b'{"text": "t", "label": 1}\n' + line)
        expected = rf"not a JSON object, in .*a\.jsonl line 2, expected an object a line, got {got}"
        with pytest.raises(InputError, match=expected):
            rows(path)

    def test_latin_1(self, write):
        path = write("a.jsonl", b'{"text": "t", "label": 1}\n{"text": "caf\xe9", "label": 1}\n')
        with pytest.raises(InputError, match=r"text is not UTF-8, in .*a\.jsonl line 2, got byte 0xe9"):
            rows(path)

    def test_surrogates(self, write):
        assert rows(write("a.jsonl", rb'{"text": "\ud83d\ude00", "label": 1}')) == [("😀", "1")]
        with pytest.raises(
            InputError, match=r"text is not Unicode, in .*a\.jsonl line 1, got half of a surrogate pair"
        ):
            rows(write("a.jsonl", rb'{"text": "\ud83d", "label": 1}'))

    def test_empty_file(self, write):
        with pytest.raises(InputError, match="no such column, in .*, expected a column 'text', got an empty file"):
            rows(write("a.jsonl", b"\n"))


class TestParquet:
    @pytest.fixture
    def write_parquet(self, tmp_path):
        import pyarrow
        from pyarrow import parquet

        def write_parquet(labels, texts=None, type=None):
            texts = pyarrow.array(texts or [f"t{i}" for i in range(len(labels))])
            table = pyarrow.table({"id": [0] * len(labels), "text": texts, "label": pyarrow.array(labels, type)})
            parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
            return tmp_path / "a.parquet"

        return write_parquet

    @pytest.mark.parametrize(
        ("labels", "names"),
        [(["x", "y", "x"], "x y x"), ([1, 0, 2], "1 0 2"), ([True, False, True], "true false true"),
         ([1.0, 0.0, 2.0], "1.0 0.0 2.0"), ([b"x", b"y", b"z"], "x y z")],
    )  # fmt: skip
    def test_labels(self, write_parquet, labels, names):
        assert rows(write_parquet(labels)) == list(zip(["t0", "t1", "t2"], names.split(), strict=True))

    def test_categories(self, write_parquet):
        import pyarrow

        path = write_parquet(pyarrow.array(["x", "y", "x"]).dictionary_encode())
        assert [label for _, label in rows(path)] == ["x", "y", "x"]

    @pytest.mark.parametrize("labels", [[1, 2, None], [1.0, 2.0, float("nan")], ["x", "y", ""]])
    def test_missing_label(self, write_parquet, labels):
        with pytest.raises(InputError, match=r"a label is missing, in .*a\.parquet row 3$"):
            rows(write_parquet(labels))

    def test_missing_text(self, write_parquet):
        with pytest.raises(InputError, match=r"a text is not a string, in .*a\.parquet row 2, got nothing"):
            rows(write_parquet([1, 2], ["a", None]))

    def test_lists_are_no_labels(self, write_parquet):
        with pytest.raises(InputError, match=r"a label is not usable, in .*a\.parquet row 1, .*got \[1\]"):
            rows(write_parquet([[1], [2]]))

    def test_missing_column(self, write_parquet):
        with pytest.raises(InputError, match=r"in .*a\.parquet, expected a column 'body', got id, text, label"):
            rows(write_parquet([1, 2]), "body")

    @pytest.mark.parametrize("content", [b"", b"PAR1 and nothing more", b"text,label\n"])
    def test_not_parquet(self, write, content):
        with pytest.raises(InputError, match=r"unreadable parquet file, in .*a\.parquet, got"):
            rows(write("a.parquet", content))

    def test_cut_off(self, write, write_parquet):
        content = write_parquet(list(range(1000))).read_bytes()
        with pytest.raises(InputError, match=r"unreadable parquet file, in .*a\.parquet, got"):
            rows(write("a.parquet", content[: len(content) // 2]))


class TestGzip:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv.gz", b"text,label\nfine,b\nbad,a\n"),
            ("a.tsv.gz", b"text\tlabel\nfine\tb\nbad\ta\n"),
            ("a.jsonl.gz", b'{"text": "fine", "label": "b"}\n{"text": "bad", "label": "a"}\n'),
            ("A.CSV.GZ", b"text,label\nfine,b\nbad,a\n"),
        ],
    )
    def test_rows(self, write, name, content):
        assert rows(write(name, gzip.compress(content, mtime=0))) == TWO

    @pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
    @pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip", "empty member"])
    def test_damage(self, write, name, damage):
        content = gzip.compress("".join(json.dumps({"text": str(i), "label": i}) + "\n" for i in range(500)).encode())
        damaged = {
            "cut": content[:-20],
            "flipped": content[:-8] + bytes(8),
            "not gzip": b"text,label\n",
            "empty member": content[:9],
        }
        with pytest.raises(InputError, match=rf"unreadable file, in .*{name}, got"):
            rows(write(name, damaged[damage]))

    def test_line_of_a_bad_byte(self, write):
        path = write("a.csv.gz", gzip.compress(b"text,label\ncaf\xe9,b\n", mtime=0))
        with pytest.raises(InputError, match=r"text is not UTF-8, in .*a\.csv\.gz line 2, got byte 0xe9"):
            rows(path)


class TestKinds:
    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.parquet", "a.csv.gz", "A.JSONL.GZ"])
    def test_tables(self, name):
        assert tables.is_table(name)

    @pytest.mark.parametrize("name", ["a.txt", "a.json", "a", "csv", "a.gz", "a.parquet.gz", "a.csv.zip", "a.xlsx"])
    def test_others(self, write, name):
        assert not tables.is_table(name)
        expected = (
            rf"unknown kind of data file, in .*{name}, expected one of \.csv, \.tsv, .*and \.gz of all but parquet"
        )
        with pytest.raises(InputError, match=expected):
            rows(write(name, b""))


class TestTexts:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", b"label,text\n,fine\nx,bad\n"),
            ("a.jsonl", b'{"text": "fine"}\n{"text": "bad"}\n'),
            ("a.txt", b"\xef\xbb\xbffine\r\nbad"),
            ("a.txt.gz", gzip.compress(b"fine\nbad\n", mtime=0)),
            ("a.csv.gz", gzip.compress(b"text\nfine\nbad\n", mtime=0)),
        ],
    )
    def test_needs_no_labels(self, write, name, content):
        assert list(tables.texts(write(name, content), "text")) == ["fine", "bad"]

    def test_lines_of_any_bytes(self, write):
        assert list(tables.texts(write("a.txt", b"caf\xe9\n"), "text")) == ["caf\ufffd"]

    def test_missing_column(self, write):
        with pytest.raises(InputError, match="no such column, .* expected a column 'body', got text"):
            list(tables.texts(write("a.jsonl", b'{"text": "fine"}\n'), "body"))

    def test_no_such_file(self, tmp_path):
        with pytest.raises(InputError, match=r"unreadable file, in .*absent\.txt, got .*No such file"):
            list(tables.texts(tmp_path / "absent.txt", "text"))

    def test_damaged_gzip(self, write):
        with pytest.raises(InputError, match=r"unreadable file, in .*a\.txt\.gz"):
            list(tables.texts(write("a.txt.gz", gzip.compress(b"fine\n", mtime=0)[:-4]), "text"))
