import json

import pytest

from tf_finetune import json_files
from tf_finetune.errors import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestWrite:
    def test_round_trip_leaves_no_other_file(self, tmp_path):
        json_files.write(tmp_path / "a.json", {"key": "ü"})
        assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"key": "ü"}
        assert names(tmp_path) == ["a.json"]

    def test_failure_keeps_the_old_file(self, tmp_path):
        json_files.write(tmp_path / "a.json", 1)
        with pytest.raises(TypeError):
            json_files.write(tmp_path / "a.json", object())
        assert (tmp_path / "a.json").read_text() == "1\n"
        assert names(tmp_path) == ["a.json"]

    def test_no_infinity_unless_asked(self, tmp_path):
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_files.write(tmp_path / "a.json", float("inf"))
        json_files.write(tmp_path / "a.json", {"a": float("inf")}, allow_nan=True)
        assert json_files.read_object(tmp_path / "a.json") == {"a": float("inf")}


class TestReadObject:
    @pytest.mark.parametrize(
        "content", ["", "[" * 1_000_000, '{"a":' * 1_000_000, "\ufeff{}", '{"a": ' + "9" * 5000 + "}", '{"a": tru']
    )
    def test_what_cannot_be_read_is_one_line(self, tmp_path, content):
        path = tmp_path / "a.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=f"unreadable a.json, in {path}, .*got .") as caught:
            json_files.read_object(path)
        assert len(str(caught.value)) < 400

    def test_no_object(self, tmp_path):
        (tmp_path / "a.json").write_text("[]")
        with pytest.raises(InputError, match="unreadable a.json, in .*, expected a JSON object, got list"):
            json_files.read_object(tmp_path / "a.json")

    def test_not_there(self, tmp_path):
        with pytest.raises(InputError, match="unreadable a.json, in .*, expected JSON, got .*No such file"):
            json_files.read_object(tmp_path / "a.json")

    def test_far_too_large(self, tmp_path, monkeypatch):
        (tmp_path / "a.json").write_text('{"a": 1}')
        monkeypatch.setattr(json_files, "LARGEST_BYTES", 4)
        with pytest.raises(InputError, match="unreadable a.json, in .*, got more than 0 MiB"):
            json_files.read_object(tmp_path / "a.json")
