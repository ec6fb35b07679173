"""The report of a tiny run: its facts, its page, and what hostile data makes of it."""

import collections
import csv
import html.parser
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import films
import pytest
from films import sentences, write_rows
from huggingface_hub import ModelCard
from PIL import Image

from tf_finetune import cli
from tf_finetune.commands.cross_validate import PREDICTIONS, cross_validate
from tf_finetune.commands.report import report
from tf_finetune.commands.train import train
from tf_finetune.config import ProblemType
from tf_finetune.errors import InputError
from tf_finetune.workdir import Workdir

HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\u202egnisrever \x1b[31mred",
    '=HYPERLINK("http://example.com")',
    "{{ 7 * 7 }} {% raw %}",
)


class Page(html.parser.HTMLParser):
    """The tags of a page, the text between them, and addresses that would be asked for."""

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.count, self.open, self.addresses, self.text, self.ids = collections.Counter(), [], [], "", []
        self.feed(content)
        self.close()
        self.tags = set(self.count)

    def handle_starttag(self, tag, attributes):
        self.count[tag] += 1
        self.ids += [value for name, value in attributes if name == "id"]
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def trained(folder, table, checkpoint, **data):
    config = films.three_epochs(table, checkpoint)
    for name, value in data.items():
        setattr(config.data, name, value)
    train(config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint):
    folder = tmp_path_factory.mktemp("report")
    table = write_rows(folder / "rows.csv", sentences(1200, ("pos", "neg")))
    return trained(folder, table, tiny_checkpoint, slice_columns="shop")


@pytest.fixture(scope="module")
def facts(run):
    return report(run)


class TestFacts:
    def test_they_are_the_file(self, run, facts):
        assert json.loads((run / "report.json").read_text(encoding="utf-8")) == facts

    def test_both_splits_with_intervals(self, facts):
        for name in ("validation", "test"):
            split = facts["results"]["splits"][name]
            low, high = split["intervals"]["accuracy"]
            assert low < split["metrics"]["accuracy"] < high
            assert split["reliability"]["before"] != split["reliability"]["after"]
            assert [row["label"] for row in split["confusion"]["rows"]] == ["neg", "pos"]

    def test_slices_by_length_label_and_column(self, facts):
        tables = {table["column"]: table["rows"] for table in facts["slices"]["tables"]}
        assert set(tables) == {"tokens a text", "true label", "shop"}
        assert {row["value"] for row in tables["true label"]} == {"neg", "pos"}
        assert {row["value"] for row in tables["shop"]} == {"shop 0", "shop 1", "shop 2"}
        assert all(row["examples"] >= 30 for rows in tables.values() for row in rows)
        for column in ("true label", "shop"):
            counted = sum(row["examples"] for row in tables[column])
            assert counted == facts["results"]["splits"]["test"]["examples"]

    def test_wrong_answers_first_the_surest_with_the_words_that_pushed(self, facts):
        examples = facts["errors"]["examples"]
        sure = [float(re.search(r"\((.*)\)", one["answer"])[1]) for one in examples]
        assert examples
        assert sure == sorted(sure, reverse=True)
        assert all(one["label"] != one["answer"].split()[0] for one in examples)
        assert all(0 <= one["completeness_error"] <= 0.01 for one in examples)
        for one in examples:
            (pieces,) = one["texts"]
            assert {piece["strength"] for piece in pieces} >= {1.0}

    def test_the_curves_begin_before_training(self, facts):
        steps = [one["step"] for one in facts["training"]["records"] if one["split"] == "validation"]
        assert steps[0] == 0
        assert len(steps) == 4

    def test_what_was_not_asked_for(self, facts):
        assert facts["audit"] is None
        assert facts["label_errors"] is None


@pytest.fixture(scope="module")
def page(run, facts):
    return Page((run / "report.html").read_text(encoding="utf-8"))


class TestPage:
    def test_it_asks_for_nothing(self, page):
        assert all(address.startswith(("#", "data:")) for address in page.addresses)
        assert not {"script", "link", "iframe", "object", "form"} & page.tags

    def test_its_tags_are_closed_and_its_names_unique(self, page):
        assert page.open == []
        assert len(page.ids) == len(set(page.ids))
        assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)

    def test_it_says_how_good_the_model_is(self, page, facts):
        assert facts["summary"]["headline"] in page.text
        assert "By shop, test" in page.text

    def test_another_checkpoint_takes_it_away(self, run, facts, tmp_path):
        copy = Workdir(shutil.copytree(run, tmp_path / "copy"))
        copy.publish_best(json.loads(copy.best.read_text()) | {"step": 1})
        assert not copy.report.exists()
        assert not copy.report_facts.exists()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, tiny_checkpoint):
    folder = tmp_path_factory.mktemp("hostile")
    rows = list(sentences(400, ("</td><b>pos", "=1+1"), odd=HOSTILE))
    rows[0] = ("<p>" + "long " * 200_000, "=1+1", "</table>")
    run = trained(folder, write_rows(folder / "rows.csv", rows), tiny_checkpoint, slice_columns="shop")
    return run, report(run, audit=True)


class TestCard:
    def test_it_says_how_good_and_where_it_fails(self, run, facts):
        card = ModelCard.load(run / "model_card.md")
        results = {(one.dataset_split, one.metric_type): one.metric_value for one in card.data.eval_results}
        measured = facts["results"]["splits"]["test"]["metrics"]["accuracy"]
        assert results["test", "accuracy"] == round(measured, 4)
        assert facts["summary"]["headline"] in card.text

    def test_no_words_of_the_data_are_in_it_but_the_labels(self, hostile):
        card = ModelCard.load(hostile[0] / "model_card.md")
        assert not re.search(r"(?<!\\)<|shop|alert", card.text)


class TestHostileData:
    def test_the_page_has_the_same_tags_and_no_script(self, hostile, run, facts):
        run_of_hostile, hostile_facts = hostile
        ours = Page((run_of_hostile / "report.html").read_text(encoding="utf-8"))
        theirs = Page((run / "report.html").read_text(encoding="utf-8"))
        assert ours.open == []
        # "b" is the mark in an interval, and a figure's the only "img"; both are as many as of harmless data.
        assert ours.count["b"] == sum(len(table["rows"]) for table in hostile_facts["slices"]["tables"])
        assert ours.count["img"] == theirs.count["img"]
        assert ours.count["style"] == 1
        assert not {"script", "link", "iframe", "a b"} & ours.tags
        assert all(address.startswith(("#", "data:")) for address in ours.addresses)
        assert "alert(1)" in ours.text  # as text

    def test_nothing_turns_the_writing_or_rings(self, hostile):
        content = (hostile[0] / "report.html").read_text(encoding="utf-8")
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", content)

    def test_the_page_stays_small(self, hostile):
        assert (hostile[0] / "report.html").stat().st_size < 2**20


BROWSER = Path(__file__).parents[1] / "pages" / "browser"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def contrast(file):
    """Of a picture: how many times the light of its darkest and lightest of common colours differ, as WCAG 2 has it."""
    colours = Image.open(file).convert("RGB").getcolors(2**24)
    enough = sum(count for count, _ in colours) / 2000
    light = [
        sum(
            share * ((one / 255 + 0.055) / 1.055) ** 2.4
            for share, one in zip((0.2126, 0.7152, 0.0722), colour, strict=True)
        )
        for count, colour in colours
        if count >= enough
    ]
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.fixture(scope="module")
def seen(run, facts, hostile, tmp_path_factory):
    pictures = tmp_path_factory.mktemp("pictures")
    seen = {}
    for name, workdir in (("plain", run), ("hostile", hostile[0])):
        (pictures / name).mkdir()
        command = ["node", str(BROWSER / "look.mjs"), CHROMIUM, str(workdir / "report.html"), str(pictures / name)]
        seen[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seen


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
@pytest.mark.skipif(not (BROWSER / "node_modules").is_dir(), reason="no axe-core: `make browser` installs it")
class TestInABrowser:
    """In headless Chromium, on a phone and a desktop, in light and in dark mode."""

    @pytest.mark.parametrize("name", ["plain", "hostile"])
    def test_the_html_is_valid(self, seen, name):
        assert seen[name]["invalid"] == []

    @pytest.mark.parametrize("name", ["plain", "hostile"])
    def test_nothing_is_asked_for_or_logged(self, seen, name):
        assert len(seen[name]["views"]) == 4
        for view in seen[name]["views"]:
            asked = [address for address in view["requests"] if not address.startswith("data:image/svg+xml;")]
            assert [address.rpartition("/")[2] for address in asked] == ["report.html"]
            assert view["logged"] == []

    @pytest.mark.parametrize("name", ["plain", "hostile"])
    def test_axe_finds_nothing(self, seen, name):
        assert [view["violations"] for view in seen[name]["views"]] == [[]] * 4

    @pytest.mark.parametrize("name", ["plain", "hostile"])
    def test_the_page_is_as_wide_as_the_screen(self, seen, name):
        assert [view["overflow"] for view in seen[name]["views"]] == [0] * 4

    def test_figures_are_legible(self, seen):
        for view in seen["plain"]["views"]:
            assert len(view["figures"]) == 8
            for figure in view["figures"]:
                letters = 10 * 96 / 72 * figure["width"] / figure["natural"]  # pixels, of 10 points
                assert letters >= 9
                assert figure["alt"]
                assert contrast(figure["file"]) >= 4.5


class TestKinds:
    @pytest.mark.parametrize(
        ("kind", "labels"),
        [(ProblemType.REGRESSION, ("1.5", "-2")), (ProblemType.MULTI_LABEL_CLASSIFICATION, ("good,kind", "bad"))],
    )
    def test_labels_of_other_kinds(self, tmp_path, tiny_checkpoint, kind, labels):
        config = films.one_epoch(write_rows(tmp_path / "rows.csv", sentences(300, labels)), tiny_checkpoint)
        config.model.problem_type = kind
        config.data.slice_columns = "shop"
        train(config, tmp_path / "run")
        facts = report(tmp_path / "run", audit=kind is not ProblemType.REGRESSION)
        page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
        assert page.open == []
        assert facts["slices"]["tables"]
        assert facts["errors"]["examples"]


def test_an_audit_and_wrong_labels(run, tmp_path, tiny_checkpoint, capsys):
    own = tmp_path / "terms.txt"
    own.write_text("[films: plot, cast]\nplot, cast\n", encoding="utf-8")
    config = films.one_epoch(run.parent / "rows.csv", tiny_checkpoint)
    config.data.folds = 2
    cross_validate(config, tmp_path / "folds")
    arguments = ["--audit", f"--identity_terms={own}", f"--out_of_fold={tmp_path / 'folds'}"]
    assert cli.main(["tf-finetune", "report", f"--workdir={run}", *arguments]) == 0
    facts = json.loads((run / "report.json").read_text(encoding="utf-8"))
    (of_films,) = [axis for axis in facts["audit"]["axes"] if axis["name"] == "films"]
    assert of_films["texts"]["found"] > 0
    assert set(facts["audit"]["groups"]) == {"shop"}
    assert facts["label_errors"]["examples"] > 200
    with (run / "label_errors.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.reader(file))) == facts["label_errors"]["likely_errors"] + 1
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert {"audit", "label-errors"} <= set(page.ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_of_fold": "nowhere"}, "no answers of cross-validation, in --out_of_fold, expected .* got nowhere"),
        ({"audit": True, "identity_terms": "nowhere.txt"}, "unreadable identity terms, in nowhere.txt"),
        ({"identity_terms": "nowhere.txt"}, "--identity_terms is for an audit, expected --audit beside it"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_is_computed(run, options, message, monkeypatch):
    monkeypatch.setattr("tf_finetune.commands.report.load_splits", lambda *_: pytest.fail("read"))
    with pytest.raises(InputError, match=message):
        report(run, **options)


def test_a_column_that_is_not_there(run, capsys):
    status = cli.main(["tf-finetune", "report", f"--workdir={run}", "--config.data.slice_columns=region"])
    assert status == 2
    assert "no such column" in capsys.readouterr().err


def test_without_a_test_split(tmp_path, tiny_checkpoint):
    rows = list(sentences(500, ("pos", "neg")))
    for name, part in (("train", rows[:300]), ("validation", rows[300:])):
        write_rows(tmp_path / f"{name}.csv", part)
    config = films.one_epoch(tmp_path, tiny_checkpoint)
    config.train.calibrate = False
    train(config, tmp_path / "run")
    facts = report(tmp_path / "run")
    assert facts["slices"]["split"] == "validation"
    assert facts["summary"]["headline"].endswith("which chose the checkpoint: the model has no test split")
    assert facts["results"]["splits"]["validation"]["reliability"]["before"] is None
    assert "before calibration" not in Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).text


def test_a_base_that_is_gone_and_data_that_changed(tmp_path, tiny_checkpoint, capsys):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    table = write_rows(tmp_path / "rows.csv", sentences(400, ("pos", "neg")))
    train(films.one_epoch(table, base), tmp_path / "run")
    shutil.rmtree(base)
    write_rows(table, sentences(420, ("pos", "neg")))
    facts = report(tmp_path / "run")
    changed = "The data has changed since the run was trained, and its splits with it."
    assert changed in facts["summary"]["sentences"]
    assert "warning: the data has changed" in capsys.readouterr().err


def test_pairs(tmp_path, tiny_checkpoint):
    path = tmp_path / "rows.csv"
    rows = [(text, shop, label) for text, label, shop in sentences(300, ("pos", "neg"))]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "other", "label"), *rows])
    config = films.one_epoch(path, tiny_checkpoint)
    config.data.text_pair_column = "other"
    train(config, tmp_path / "run")
    facts = report(tmp_path / "run", audit=True)
    assert all(len(one["texts"]) == 2 for one in facts["errors"]["examples"])
    assert facts["audit"]["axes"]


def test_many_labels(tmp_path, tiny_checkpoint):
    """More than a matrix shows: the confusions are listed, and there are no curves."""
    names = [f"intent {number}" for number in range(40)]
    rows = [(f"{films.FILLERS[k % 11]} {films.FILLERS[k % 7]} {k}", names[k % 40], "") for k in range(1200)]
    train(films.one_epoch(write_rows(tmp_path / "rows.csv", rows), tiny_checkpoint), tmp_path / "run")
    split = report(tmp_path / "run")["results"]["splits"]["test"]
    assert split["curves"] is None
    counts = [row["counts"][0] for row in split["confusion"]["rows"]]
    assert counts == sorted(counts, reverse=True)
    wrong = split["examples"] - round(split["metrics"]["accuracy"] * split["examples"])
    assert 0 < sum(counts) <= wrong


def test_a_report_that_fails_leaves_no_table_behind(run, tmp_path, monkeypatch):
    copy = Workdir(shutil.copytree(run, tmp_path / "copy"))
    folds = tmp_path / "folds"
    folds.mkdir()
    answers = [
        {"where": str(k), "true": "pos", "text": "a", "probabilities": {"pos": 0.5, "neg": 0.5}} for k in range(9)
    ]
    (folds / PREDICTIONS).write_text("".join(json.dumps(one) + "\n" for one in answers))
    before = sorted(path.name for path in copy.path.iterdir())
    monkeypatch.setattr("tf_finetune.commands.report.load_splits", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report(copy.path, out_of_fold=folds)
    assert sorted(path.name for path in copy.path.iterdir()) == before


def test_a_damaged_line_of_the_curves_is_left_out(run, tmp_path, capsys):
    copy = Workdir(shutil.copytree(run, tmp_path / "copy"))
    whole = copy.metrics.read_text()
    copy.metrics.write_text(f'null\n{{"split": "train"}}\n{{"split": "train", "step": 1, "loss": NaN}}\n{whole}half')
    facts = report(copy.path)
    assert len(facts["training"]["records"]) == len(whole.splitlines())
    said = capsys.readouterr().err
    for number in (1, 2, 3, len(whole.splitlines()) + 4):
        assert f"line {number} is damaged, and left out of the curves" in said


def test_a_slice_with_wrong_labels_is_found(tmp_path, tiny_checkpoint):
    """Labels of one shop, whose customers use other words, are turned round in training; on test they are right."""
    turned, theirs = {"pos": "neg", "neg": "pos"}, {"good": "great", "bad": "dull"}
    rows = [
        (" ".join(theirs.get(word, word) for word in text.split()) if shop == "shop 1" else text, label, shop)
        for text, label, shop in sentences(1500, ("pos", "neg"))
    ]
    wrong = [(text, turned[label] if shop == "shop 1" else label, shop) for text, label, shop in rows[:900]]
    for name, part in (("train", wrong), ("validation", rows[900:1100]), ("test", rows[1100:])):
        write_rows(tmp_path / f"{name}.csv", part)
    config = films.three_epochs(tmp_path, tiny_checkpoint)
    config.data.slice_columns, config.train.epochs = "shop", 8
    train(config, tmp_path / "run")
    facts = report(tmp_path / "run")
    (table,) = [table for table in facts["slices"]["tables"] if table["column"] == "shop"]
    found = {one["value"]: one for one in table["rows"]}
    assert [name for name in sorted(found) if found[name]["is_worse"]] == ["shop 1"]
    assert found["shop 1"]["score"] < 0.5 < found["shop 0"]["score"]
    assert any("shop is shop 1" in sentence for sentence in facts["summary"]["of_the_data"])


def test_a_run_that_learnt_its_texts_by_heart_is_said_to_have(tmp_path, tiny_checkpoint):
    """Labels by chance: there is nothing to learn but the texts themselves."""
    draw = random.Random(0)
    rows = [(text, draw.choice(("neg", "pos")), shop) for text, _, shop in sentences(200, ("pos", "neg"))]
    for name, part in (("train", rows[:60]), ("validation", rows[60:])):
        write_rows(tmp_path / f"{name}.csv", part)
    config = films.three_epochs(tmp_path, tiny_checkpoint)
    config.train.epochs, config.optimizer.learning_rate = 30, 3e-3
    train(config, tmp_path / "run")
    signs = " ".join(report(tmp_path / "run")["training"]["signs"])
    assert re.search("The loss on validation was least at step .* while that of training went on falling", signs)
