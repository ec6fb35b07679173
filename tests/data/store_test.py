"""Rows on disk: never stale, never broken, never read twice for nothing."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tf_finetune.data import cache, fingerprint, sources, store
from tf_finetune.errors import InputError
from tf_finetune.readers import files, tables
from tf_finetune.readers.rows import Columns, Found, Row

ROWS = [(f"text number {i}", "ab"[i % 2]) for i in range(200)]


@pytest.fixture
def source(tmp_path, write_table):
    return write_table(tmp_path / "data" / "test.csv", ROWS)


@pytest.fixture
def readings(monkeypatch):
    """The files that were read as tables, in order."""
    read, original = [], tables.rows

    def rows(path, *arguments):
        read.append(path)
        return original(path, *arguments)

    monkeypatch.setattr(files.tables, "rows", rows)
    return read


def load(source, **options):
    return list(sources.load(str(source), **options).examples["test"].texts)


def kept(folder):
    """The folders that stand for something."""
    return [path for path in folder.glob("*") if not path.name.startswith(".")]


TEXTS = [text for text, _ in ROWS]
# For a process of its own.
COUNT = "import sys; from tf_finetune.data import sources; print(len(sources.load(sys.argv[1]).examples['test']))"


class TestKey:
    def test_read_once(self, source, readings):
        assert load(source) == load(source) == TEXTS
        assert readings == [source]

    def test_touched(self, source, readings):
        load(source)
        os.utime(source, (1, 1))
        load(source)
        assert len(readings) == 1

    def test_changed_with_its_size_and_date_kept(self, source):
        load(source)
        before = source.stat()
        source.write_bytes(source.read_bytes().replace(b"number 7,", b"number X,"))
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert source.stat().st_size == before.st_size
        assert load(source)[7] == "text number X"

    def test_changed_back(self, source, readings):
        content = source.read_bytes()
        load(source)
        source.write_bytes(content + b"one more,a\n")
        assert len(load(source)) == 201
        source.write_bytes(content)
        assert load(source) == TEXTS
        assert len(readings) == 2

    def test_another_path_is_read_anew_because_rows_know_their_place(self, source, tmp_path):
        load(source)
        moved = source.rename(tmp_path / "test.csv")
        place = sources.load(str(moved)).examples["test"].places[0]
        assert place == f"{moved} line 2"

    def test_another_column(self, tmp_path):
        path = tmp_path / "test.csv"
        path.write_text("text,body,label\nx,y,a\nx,z,b\n")
        assert load(path) == ["x", "x"]
        assert load(path, columns=Columns(text="body")) == ["y", "z"]

    def test_another_file_in_the_folder(self, source, write_table):
        load(source.parent)
        write_table(source.parent / "test-1.csv", [("new", "a")])
        assert sorted(load(source.parent)) == sorted([*TEXTS, "new"])

    def test_another_file_of_a_glob(self, source, write_table):
        pattern = source.parent / "test*.csv"
        load(pattern)
        write_table(source.parent / "test-1.csv", [("new", "a")])
        assert sorted(load(pattern)) == sorted([*TEXTS, "new"])

    @pytest.mark.parametrize("change", ["text", "name", "new", "gone"])
    def test_a_folder_of_classes(self, tmp_path, change):
        for label in "ab":
            (tmp_path / "data" / "test" / label).mkdir(parents=True)
            (tmp_path / "data" / "test" / label / "1.txt").write_text(f"text {label}")
        first = sources.load(str(tmp_path / "data"))
        one = tmp_path / "data" / "test" / "a" / "1.txt"
        if change == "text":
            one.write_text("text c")
        elif change == "name":
            one.rename(one.with_name("2.txt"))
        elif change == "new":
            one.with_name("0.txt").write_text("text 0")
        else:
            one.with_name("0.txt").write_text("text 0")
            one.unlink()
        second = sources.load(str(tmp_path / "data"))
        assert first.examples["test"].texts == ["text a", "text b"]
        assert (first.examples["test"] != second.examples["test"]) or change == "name"
        names = [os.path.basename(place) for place in second.examples["test"].places]
        assert names[0] == {"text": "1.txt", "name": "2.txt"}.get(change, "0.txt")

    def test_other_code_reads_anew(self, source, readings, monkeypatch):
        load(source)
        monkeypatch.setattr(fingerprint, "code", lambda: "newer")
        load(source)
        assert len(readings) == 2

    def test_changed_while_it_was_read(self, source, readings, monkeypatch, data_cache):
        original = tables.rows

        def rows(path, *arguments):
            yield from original(path, *arguments)
            path.write_text("text,label\nnew,a\n")

        monkeypatch.setattr(files.tables, "rows", rows)
        with pytest.raises(InputError, match=r"the data changed while it was read, in .*test\.csv"):
            load(source)
        assert kept(data_cache) == []


class TestWhatIsKept:
    def test_everything_of_a_row(self, data_cache):
        rows = [Row("é", "a", "pair", 0.5, "f line 1"), Row("", ("a", "b"), None, 1.0, "f line 2"), Row("x", ())]
        found = Found({"train": lambda on_fault: iter(rows)})
        columns = store.stored(lambda: "key", lambda: found, place="f")[0]["train"].table.to_pydict()
        assert columns["text"] == ["é", "", "x"]
        assert columns["text_pair"] == ["pair", None, None]
        assert columns["label"] == ["a", None, None]
        assert columns["labels"] == [None, ["a", "b"], []]
        assert columns["weight"] == [0.5, 1.0, 1.0]
        assert columns["where"] == ["f line 1", "f line 2", ""]
        assert columns["hash"][1] == 0xE3B0C44298FC1C14  # sha256 of nothing
        assert columns["tenth"][1] == 0xE3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855 % 10

    def test_opens_with_datasets(self, source, data_cache):
        import datasets

        load(source)
        (file,) = data_cache.glob("*/*.arrow")
        assert datasets.Dataset.from_file(str(file))["text"][:] == TEXTS

    def test_notes(self, tmp_path, write_table, readings):
        write_table(tmp_path / "test.csv", ROWS)
        write_table(tmp_path / "stray.csv", ROWS)
        first, second = (sources.load(str(tmp_path)) for _ in range(2))
        assert first.notes == second.notes == ("left out: stray.csv (no split's name)",)
        assert len(readings) == 1

    def test_pieces(self, monkeypatch, source):
        monkeypatch.setattr(store, "PIECE_ROWS", 7)
        examples = sources.load(str(source)).examples["test"]
        assert examples.texts == TEXTS
        assert examples.labels.tolist() == [0, 1] * 100
        some = examples.take(np.array([199, 0, 6, 7, 6]))
        assert some.texts == [TEXTS[i] for i in (199, 0, 6, 7, 6)]
        assert some.texts[1:3] == [TEXTS[0], TEXTS[6]]
        assert some.texts[-1] == TEXTS[6]

    def test_long_texts_make_small_pieces(self, monkeypatch):
        monkeypatch.setattr(store, "PIECE_CHARACTERS", 10)
        pieces = store._pieces(Row("x" * size, "a") for size in (3, 4, 5, 20, 1))
        assert [[len(row.text) for row in piece] for piece in pieces] == [[3, 4, 5], [20], [1]]


class TestInterrupted:
    @pytest.mark.parametrize("after", [0, 1, 10, 199])
    @pytest.mark.parametrize("error", [InputError("bad row"), KeyboardInterrupt(), RuntimeError()])
    def test_nothing_is_left_and_nothing_trusted(self, source, readings, monkeypatch, data_cache, after, error):
        monkeypatch.setattr(store, "PIECE_ROWS", 5)
        with monkeypatch.context() as patch:
            original = tables.rows

            def rows(path, *arguments):
                for number, row in enumerate(original(path, *arguments)):
                    if number == after:
                        raise error
                    yield row

            patch.setattr(files.tables, "rows", rows)
            with pytest.raises(type(error)):
                load(source)
        assert list(data_cache.iterdir()) == []
        assert load(source) == TEXTS

    def test_killed(self, source, data_cache):
        """A real process, killed while rows stream in; a living one beside it keeps what it is writing."""
        code = (
            "import sys, time\nfrom tf_finetune.data import sources, store\n"
            "from tf_finetune.readers import files, tables\n"
            "store.PIECE_ROWS, rows = 5, tables.rows\n"
            "def slow(*arguments):\n"
            "    for number, row in enumerate(rows(*arguments)):\n"
            "        if number == 100:\n"
            "            print('half', flush=True); time.sleep(600)\n"
            "        yield row\n"
            "files.tables.rows = slow\n"
            "sources.load(sys.argv[1])"
        )
        command = [sys.executable, "-c", code, str(source)]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        try:
            assert [process.stdout.readline() for process in processes] == ["half\n"] * 2
            assert len(list(data_cache.iterdir())) == 2
            processes[0].send_signal(signal.SIGKILL)
            processes[0].wait()
            assert kept(data_cache) == []
            assert load(source) == TEXTS
            assert len(kept(data_cache)) == 1
            assert len(list(data_cache.iterdir())) == 2  # the killed one's is gone, the living one's is not
        finally:
            for process in processes:
                process.kill()
                process.communicate()

    def test_a_folder_taken_for_a_leftover_before_it_was_locked(self, source, monkeypatch):
        made, original = [], cache.tempfile.mkdtemp

        def mkdtemp(**options):
            made.append(original(**options))
            if len(made) == 1:
                os.rmdir(made[0])
            return made[-1]

        monkeypatch.setattr(cache.tempfile, "mkdtemp", mkdtemp)
        assert load(source) == TEXTS
        assert len(made) == 2


class TestDamaged:
    @pytest.mark.parametrize("name", ["test.arrow", "manifest.json"])
    @pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "removed", "longer"])
    def test_is_made_again_and_said(self, source, readings, data_cache, capfd, name, damage):
        load(source)
        (folder,) = kept(data_cache)
        content = (folder / name).read_bytes()
        middle = len(content) // 2
        damaged = {
            "cut": content[:-9],
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "emptied": b"",
            "removed": None,
            "longer": content + b"x",
        }[damage]
        (folder / name).unlink()
        if damaged is not None:
            (folder / name).write_bytes(damaged)
        assert load(source) == TEXTS
        assert len(readings) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line == f"warning: rows of {source}: the copy in {folder} is damaged and is made again"
        assert load(source) == TEXTS
        assert len(readings) == 2
        assert [path.name for path in data_cache.iterdir()] == [folder.name]

    @pytest.mark.parametrize("position", range(0, 3200, 97))
    def test_every_bit_counts(self, source, data_cache, position):
        load(source)
        (file,) = data_cache.glob("*/test.arrow")
        content = bytearray(file.read_bytes())
        content[position % len(content)] ^= 1 << (position % 8)
        file.write_bytes(content)
        assert cache._facts(file.parent) is None


class TestTwoProcesses:
    def test_at_once(self, source, data_cache):
        command = [sys.executable, "-c", COUNT, str(source)]
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
        ]
        assert [process.communicate() for process in processes] == [("200\n", "")] * 3
        assert len(list(data_cache.iterdir())) == 1

    def test_another_published_meanwhile(self, source, readings, monkeypatch, data_cache):
        """The second one to be ready uses what the first has published."""
        original = cache._seal
        nested = []

        def seal(aside, facts):
            original(aside, facts)
            if not nested:
                nested.append(aside)
                load(source)

        monkeypatch.setattr(cache, "_seal", seal)
        assert load(source) == TEXTS
        assert len(readings) == 2
        assert len(list(data_cache.iterdir())) == 1

    def test_another_published_something_broken(self, source, monkeypatch, data_cache):
        original = cache._seal

        def seal(aside, facts):
            original(aside, facts)
            key = aside.name[1:41]
            (data_cache / key).mkdir()
            (data_cache / key / "test.arrow").write_bytes(b"half")

        with monkeypatch.context() as patch:
            patch.setattr(cache, "_seal", seal)
            assert load(source) == TEXTS
        assert len(list(data_cache.iterdir())) == 1
        assert load(source) == TEXTS


class TestUnwritable:
    @pytest.fixture
    def broken(self, data_cache):
        """A file where the cache folder would be: what even root cannot write."""
        data_cache.parent.mkdir()
        data_cache.write_text("in the way")

    def test_a_temporary_folder_takes_its_place(self, source, broken, readings, capfd):
        assert load(source) == load(source) == TEXTS
        assert len(readings) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("warning: the data cache ")
        assert "cannot be written (File exists); this run uses " in line

    def test_it_is_removed_at_exit(self, source, broken, tmp_path):
        (tmp_path / "tmp").mkdir()
        environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
        command = [sys.executable, "-c", COUNT, str(source)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert result.stdout == "200\n"
        assert list((tmp_path / "tmp").iterdir()) == []

    @pytest.mark.parametrize("failing", ["write", "mkdtemp", "rename", "fsync"])
    def test_a_full_disk(self, source, monkeypatch, capfd, data_cache, failing):
        """Reported at any point of the writing."""
        from datasets.arrow_writer import ArrowWriter

        no_space = OSError(28, "No space left on device")
        targets = {
            "write": (ArrowWriter, "write_table"),
            "mkdtemp": (cache.tempfile, "mkdtemp"),
            "rename": (cache.os, "rename"),
            "fsync": (cache.os, "fsync"),
        }
        holder, name = targets[failing]
        original, failed = getattr(holder, name), []

        def fail(*arguments, **options):
            if not failed:
                failed.append(name)
                raise no_space
            return original(*arguments, **options)

        monkeypatch.setattr(holder, name, fail)
        assert load(source) == TEXTS
        assert list(data_cache.iterdir()) == []
        assert "cannot be written (No space left on device); this run uses" in capfd.readouterr().err

    def test_nowhere_to_write(self, source, monkeypatch):
        def fail(*arguments, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache.os, "fsync", fail)
        with pytest.raises(InputError, match="no room to keep the data, in .*, got No space left on device"):
            load(source)

    def test_what_was_kept_is_used_from_a_cache_that_cannot_be_written(self, source, readings, monkeypatch):
        load(source)
        monkeypatch.setattr(cache, "_built", None)
        assert load(source) == TEXTS
        assert len(readings) == 1


def test_memory_does_not_grow_with_rows(tmp_path):
    """Anonymous memory of a process that streams ten times as many rows grows by what is kept of each alone."""
    code = (
        "import sys; from pathlib import Path; from tf_finetune.data import store\n"
        "from tf_finetune.readers.rows import Found, Row\n"
        "rows = (Row(f'text {i} ' + 'x' * 500, 'a', None, 1.0, f'file line {i}') for i in range(int(sys.argv[1])))\n"
        "store.stored(lambda: sys.argv[1], lambda: Found({'train': lambda on_fault: rows}), place='here')\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('RssAnon')))"
    )
    command = [sys.executable, "-c", code]
    few, many = (
        int(subprocess.run([*command, size], capture_output=True, text=True, check=True).stdout)
        for size in ("20000", "200000")
    )
    assert many - few < 20_000  # KiB; the texts alone are 100 MB
