"""The Python in README.md and docs/, run as it stands, from top to bottom."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    exec(compile("\n".join(blocks), page, "exec"), {})


def test_the_readme_s_example_prints_what_it_says(capsys):
    run("README.md")
    printed = capsys.readouterr().out
    assert printed.count("True") == 20
    assert "False" not in printed


@pytest.mark.usefixtures("without_type_checks")
def test_the_gradients_page_holds_what_it_asserts():
    run("docs/gradients.md")


@pytest.mark.parametrize(("page", "model"), [("policy_gradient", "policy_gradient"), ("q_learning", "dqn")])
def test_the_pages_on_control_run_with_a_trained_model_and_hold_what_they_assert(
    page, model, finished, tmp_path, monkeypatch
):
    shutil.copytree(finished(model), tmp_path / "RUN")
    monkeypatch.chdir(tmp_path)
    run(f"docs/{page}.md")
