import pytest

from tf_finetune.commands.description import description, evaluation_of
from tf_finetune.config import ExperimentConfig
from tf_finetune.errors import InputError
from tf_finetune.workdir import Workdir


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("very_bad: 1-2", "very_bad: 1-2"),
        ("a\n```\n# b", r"a \`\`\` # b"),
        ("<!-- *x* [y](z) | \\", r"\<!-- \*x\* \[y\](z) \| \\"),
        ("電影 é", "電影 é"),
    ],
)
def test_a_label_stays_on_its_line_and_is_no_markup(label, shown):
    text = description(ExperimentConfig(), ["plain", label], {})
    assert f"- labels: plain, {shown}\n- trained on:" in text


def test_a_damaged_evaluation_is_named(tmp_path):
    run = Workdir(tmp_path)
    assert evaluation_of(run) == {}
    run.evaluation.write_text("{")
    with pytest.raises(InputError, match=r"unreadable evaluation\.json, in .*, expected JSON, got"):
        evaluation_of(run)
