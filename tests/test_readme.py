"""The Python in README.md and docs/, run as it stands, from top to bottom."""

import re
import shutil
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def run(page, **names):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    exec(compile("\n".join(blocks), page, "exec"), names)


def test_readme_example_prints_the_documented_output(capsys):
    run("README.md")
    printed = capsys.readouterr().out
    assert printed.count("True") == 20
    assert "False" not in printed


@pytest.mark.usefixtures("without_type_checks")
def test_gradients_page_runs_and_its_assertions_hold():
    run("docs/gradients.md")


def test_captioning_page_runs_with_a_trained_model_and_its_assertions_hold(finished, tmp_path, monkeypatch):
    shutil.copytree(finished("captioning"), tmp_path / "RUN")
    monkeypatch.chdir(tmp_path)
    run("docs/captioning.md", images=torch.zeros(2, 3, 84, 84, dtype=torch.uint8))


@pytest.mark.parametrize(("page", "model"), [("policy_gradient", "policy_gradient"), ("q_learning", "dqn")])
def test_control_pages_run_with_a_trained_model_and_their_assertions_hold(page, model, finished, tmp_path, monkeypatch):
    shutil.copytree(finished(model), tmp_path / "RUN")
    monkeypatch.chdir(tmp_path)
    run(f"docs/{page}.md")
