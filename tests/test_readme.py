"""The Python in README.md and docs/, run as it stands, from top to bottom."""

import re
from pathlib import Path

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


def test_the_gradients_page_holds_what_it_asserts():
    run("docs/gradients.md")


def test_the_q_learning_page_holds_what_it_asserts():
    run("docs/q_learning.md")
