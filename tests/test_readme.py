"""The README's Python, run as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_its_example_prints_what_it_says(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(example, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("True") == 20
    assert "False" not in printed
