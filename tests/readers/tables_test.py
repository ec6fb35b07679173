import gzip
import json
import tracemalloc

import pytest

from tf_finetune.errors import InputError
from tf_finetune.readers import delimited, tables
from tf_finetune.readers.rows import Columns, Row, refuse


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def rows(path, text_column="text", label_column="label"):
    return [(row.text, row.label) for row in tables.rows(path, Columns(text_column, label_column), refuse)]


def faults(path, columns=None):
    """Texts and labels of the rows that can be used, and what is said of the others."""
    said = []
    found = [(row.text, row.label) for row in tables.rows(path, columns or Columns(), said.append)]
    return found, [str(error).replace(f"{path.parent}/", "") for error in said]


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
        with pytest.raises(
            InputError,
            match=r"a label is missing, in .*data\.csv line 4, expected a label, or \[\] for none of several$",
        ):
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
        path = write("data.csv", b'text,label\nfine,b\n"bad,a\nso so,b\n')
        expected = r'a quote is not closed, in .*data\.csv line 3, expected a closing ", got the file\'s end'
        with pytest.raises(InputError, match=expected):
            rows(path)

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
        with pytest.raises(
            InputError,
            match=r"a label is missing, in .*a\.jsonl line 2, expected a label, or \[\] for none of several$",
        ):
            rows(path)

    @pytest.mark.parametrize(
        ("value", "names"),
        [('["x", " y "]', ("x", "y")), ("[]", ()), ("[1, 1, 2.5, true]", ("1", "2.5", "true")), ("2.50", "2.5")],
    )
    def test_lists_and_fractions(self, write, value, names):
        assert rows(write("a.jsonl", b'{"text": "t", "label": %s}' % value.encode())) == [("t", names)]

    @pytest.mark.parametrize("value", ['["x", null]', '["x", ""]'])
    def test_a_list_with_a_missing_label(self, write, value):
        with pytest.raises(InputError, match=r"a label is missing, in .*a\.jsonl line 1$"):
            rows(write("a.jsonl", b'{"text": "t", "label": %s}' % value.encode()))

    @pytest.mark.parametrize("value", ["[[1]]", '{"a": 1}'])
    def test_unusable_label(self, write, value):
        path = write("a.jsonl", b'{"text": "t", "label": %s}' % value.encode())
        expected = r"a label is not usable, in .*a\.jsonl line 1, expected a .*name.*, got"
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
            texts = pyarrow.array([f"t{i}" for i in range(len(labels))] if texts is None else texts)
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
        with pytest.raises(
            InputError,
            match=r"a label is missing, in .*a\.parquet row 3, expected a label, or \[\] for none of several$",
        ):
            rows(write_parquet(labels))

    def test_missing_text(self, write_parquet):
        with pytest.raises(InputError, match=r"a text is not a string, in .*a\.parquet row 2, got nothing"):
            rows(write_parquet([1, 2], ["a", None]))

    def test_lists(self, write_parquet):
        assert [label for _, label in rows(write_parquet([["x", "y"], [], ["z"]]))] == [("x", "y"), (), ("z",)]

    def test_a_text_that_is_not_utf8(self, write_parquet):
        import pyarrow

        bad = pyarrow.array([b"t0", b"caf\xe9", b"t2"]).view(pyarrow.string())
        path = write_parquet([1, 2, 3], bad)
        with pytest.raises(InputError, match=r"text is not UTF-8, in .*a\.parquet row 2, got byte 0xe9"):
            rows(path)
        assert faults(path)[0] == [("t0", "1"), ("t2", "3")]

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
        lines = [json.dumps({"text": str(i), "label": i}) if "json" in name else f"{i},{i}" for i in range(500)]
        content = gzip.compress("\n".join([*["text,label"] * ("csv" in name), *lines]).encode())
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


class TestFaults:
    """Where the reader may go on: every fault by its row, and every row that has none."""

    def test_of_csv(self, write):
        content = (
            b'\xef\xbb\xbftext,label\r\nfine,b\r\n"two\r\nlines",a\r\none,two,a\r\ncaf\xe9,b\r\nnothing,\r\n'
            b'"said "no" twice",b\r\nnul\x00,a\r\n"never closed,b\r\nlast,a\r\n'
        )
        found, said = faults(write("a.csv", content))
        assert found == [("fine", "b"), ("two\r\nlines", "a"), ("nul\x00", "a"), ("last", "a")]
        assert said == [
            "wrong number of columns, in a.csv line 5, expected 2, got 3",
            "text is not UTF-8, in a.csv line 6, got byte 0xe9",
            "a label is missing, in a.csv line 7, expected a label, or [] for none of several",
            "malformed table, in a.csv line 8, got ',' expected after '\"'",
            "a quote is not closed, in a.csv line 10, expected a closing \", got the file's end",
        ]

    def test_a_stray_quote_takes_no_rows_with_it(self, write):
        path = write("a.csv", b'text,label\n"one,a\ntwo,b\nthree,a\n"four, five",b\n')
        found, said = faults(path)
        assert found == [("two", "b"), ("three", "a"), ("four, five", "b")]
        assert said == [
            "malformed table, in a.csv line 2, got ',' expected after '\"' 3 lines further on: an unclosed quote, or "
            "one that is not doubled"
        ]

    def test_a_quote_that_opens_on_a_rows_second_line(self, write):
        found, said = faults(write("a.csv", b'text,label,more\n"one\ntwo",a,"three\nfour,b,c\n'))
        assert found == [("four", "b")]
        assert "line 3" in said[0]

    def test_a_text_without_end_is_given_up(self, write, monkeypatch):
        monkeypatch.setattr(delimited, "LONGEST_TEXT", 1000)
        found, said = faults(write("a.csv", b'text,label\n"one,a\n' + b"two,b\n" * 1000))
        assert found == [("two", "b")] * 1000
        assert said == ['a quote is not closed, in a.csv line 2, expected a closing ", got 1000 characters without one']

    def test_rows_joined_by_a_quote(self, write):
        _, said = faults(write("a.csv", b'text,label\n"one\ntwo",b,c\n'))
        assert said == ["wrong number of columns, in a.csv line 2, expected 2, got 3 in 2 lines, joined by a quote"]

    def test_of_json_lines(self, write):
        lines = [b"{", b'{"text": "fine", "label": 1}', b"[1]", b'{"text": 3, "label": 1}', b'{"text": "\xe9"}']
        found, said = faults(write("a.jsonl", b"\n".join(lines)))
        assert found == [("fine", "1")]
        assert [message.split(", ")[1] for message in said] == [f"in a.jsonl line {n}" for n in (1, 3, 4, 5)]

    def test_nothing_but_faults(self, write):
        assert len(faults(write("a.jsonl", b"{\n{\n"))[1]) == 2

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.csv.gz", "a.txt"])
    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_utf16(self, write, name, encoding):
        content = "text,label\nfine,a\n".encode(encoding)
        path = write(name, gzip.compress(content) if name.endswith("gz") else content)
        with pytest.raises(InputError, match=rf"text is UTF-16, in .*{name}, expected UTF-8: save the file as that"):
            list(tables.texts(path, "text"))

    def test_a_column_that_is_there_twice(self, write):
        with pytest.raises(InputError, match="a column is there twice, in .*, expected one 'text', got 2 of them"):
            rows(write("a.csv", b"text,label,text\nfine,b,c\n"))
        assert rows(write("a.csv", b"text,label,,\nfine,b,,\n")) == [("fine", "b")]

    def test_a_missing_column_is_of_the_whole_file(self, write):
        with pytest.raises(InputError, match="no such column"):
            faults(write("a.csv", b"text\nfine\n"))

    def test_a_header_that_is_not_utf8(self, write):
        with pytest.raises(InputError, match="text is not UTF-8, in .*a.csv line 1, got byte 0xe9"):
            rows(write("a.csv", b"caf\xe9,label\n"))


class TestPairsAndWeights:
    COLUMNS = Columns(text_pair="second", weight="count")

    @pytest.fixture(params=["a.csv", "a.jsonl", "a.parquet"])
    def path(self, request, tmp_path):
        import pyarrow
        from pyarrow import parquet

        table = {"count": [2, 0.5], "second": ["p", "q"], "text": ["fine", "bad"], "label": ["b", "a"]}
        path = tmp_path / request.param
        if path.suffix == ".parquet":
            parquet.write_table(pyarrow.table(table), path)
        elif path.suffix == ".csv":
            path.write_text("count,second,text,label\n2,p,fine,b\n0.5,q,bad,a\n")
        else:
            path.write_text("".join(json.dumps({key: table[key][i] for key in table}) + "\n" for i in range(2)))
        return path

    def test_rows(self, path):
        unit = "row" if path.suffix == ".parquet" else "line"
        first = 2 if path.suffix == ".csv" else 1
        assert list(tables.rows(path, self.COLUMNS, refuse)) == [
            Row("fine", "b", "p", 2.0, f"{path} {unit} {first}"),
            Row("bad", "a", "q", 0.5, f"{path} {unit} {first + 1}"),
        ]

    def test_one_of_them(self, path):
        assert [row.weight for row in tables.rows(path, Columns(weight="count"), refuse)] == [2.0, 0.5]
        assert [row.text_pair for row in tables.rows(path, Columns(text_pair="second"), refuse)] == ["p", "q"]

    @pytest.mark.parametrize("weight", ["-1", "NaN", "Infinity", "null", '"x"', "true", '""'])
    def test_unusable_weight(self, write, weight):
        path = write("a.jsonl", b'{"text": "t", "label": 1, "count": %s}' % weight.encode())
        with pytest.raises(InputError, match="a weight is not usable, in .* line 1, expected a number of 0 or more"):
            list(tables.rows(path, Columns(weight="count"), refuse))

    def test_a_missing_second_text(self, write):
        path = write("a.jsonl", b'{"text": "t", "label": 1, "second": null}')
        with pytest.raises(InputError, match="a text is not a string, in .* line 1, got nothing"):
            list(tables.rows(path, Columns(text_pair="second"), refuse))


def test_a_large_file_takes_no_memory(tmp_path):
    """20 MB of csv; what Python allocates meanwhile is measured."""
    path = tmp_path / "large.csv"
    path.write_text("text,label\n" + f"{'a word or two ' * 14},b\n" * 100_000)
    tracemalloc.start()
    count = sum(1 for _ in tables.rows(path, Columns(), refuse))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 100_000
    assert peak < 2**20


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
