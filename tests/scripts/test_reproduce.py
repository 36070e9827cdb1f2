import json
from pathlib import Path

import pytest

from zoo.cli import _reproduce as reproduction
from zoo.cli import arguments_help
from zoo.cli._arguments import ReproduceConfig
from zoo.data import DatasetUnavailableError
from zoo.reproduction._tables import PAPERS
from zoo.training import config_hash


@pytest.fixture
def mnist(monkeypatch):
    """MNIST is at hand, or so it seems."""
    monkeypatch.setattr("zoo.cli._reproduce.find_mnist", lambda: Path("mnist"))


@pytest.fixture
def trained(monkeypatch, composed):
    """Stands in for ``scripts/train.py``: what was asked for finishes at once, with an error of 1 % a seed."""
    asked = []

    def run(arguments):
        asked.append(arguments)
        config = composed(arguments)
        folder = Path("runs", "ram", f"run{len(asked)}")
        folder.mkdir(parents=True)
        record = {
            "state": "finished",
            "data": "mnist",
            "config_hash": config_hash(config),
            "wall_seconds": 60,
            "metrics": {"test_error": config["seed"] / 100},
        }
        (folder / "status.json").write_text(json.dumps(record))
        return 0

    monkeypatch.setattr(reproduction, "train_in_subprocess", run)
    return asked


@pytest.mark.usefixtures("mnist")
def test_missing_runs_are_run_and_the_table_is_printed(script, trained):
    small = ["paper=ram", "budget=smoke", "rows=[6,random]"]
    answer = script("reproduce.py", *small, "seeds=[1,2]")
    assert answer.code == 0
    assert len(trained) == 4
    assert "| RAM, 6 glimpses, 8×8, 1 scale | 1.12 | 1.29 | 0.67 | 1.50 ± 6.35 | 2 | 1 |" in answer.out
    assert "Its values are not results." in answer.out
    again = script("reproduce.py", *small, "seeds=[1,2,3]")
    assert len(trained) == 6
    assert "2.00 ± 2.48 | 3 |" in again.out


@pytest.mark.usefixtures("mnist")
def test_smoke_run_uses_one_seed_and_counts_runs(script, trained):
    answer = script("reproduce.py", "paper=ram", "budget=smoke")
    assert answer.code == 0
    assert len(trained) == len(PAPERS["ram"].rows)
    assert all({"data=mnist_5k", "seed=1"} <= set(arguments) for arguments in trained)
    assert "run 9 of 9: control: 6 glimpses at the center, seed 1" in answer.out


@pytest.mark.usefixtures("mnist")
def test_full_table_is_written_next_to_the_runs_unless_published(script, trained, monkeypatch):
    (published := Path("docs", "results")).mkdir(parents=True)
    monkeypatch.setattr("zoo.reproduction._tables.CHECKOUT_RECORDS", published)
    small = ["paper=ram", "rows=[6]", "seeds=[1]"]
    answer = script("reproduce.py", *small)
    assert answer.code == 0, answer.err
    assert "table: runs/results/results.md" in answer.out
    assert "| RAM, 6 glimpses" in Path("runs", "results", "results.md").read_text()
    assert list(published.iterdir()) == []
    answer = script("reproduce.py", *small, "publish=true")
    assert answer.code == 0, answer.err
    assert len(trained) == 1
    assert [path.name for path in published.iterdir()] == ["ram_mnist_28_6-seed1.json"]
    assert "| RAM, 6 glimpses" in Path("docs", "results.md").read_text()
    assert script("reproduce.py", *small, "publish=true", "budget=smoke").code == 1


@pytest.mark.usefixtures("mnist")
def test_run_on_other_data_never_enters_the_table(script, trained, monkeypatch, composed):
    honest = reproduction.train_in_subprocess

    def run(arguments):
        code = honest(arguments)
        for path in Path("runs").glob("ram/*/status.json"):
            other = config_hash(composed([*arguments, "data=mnist_5k"]))
            path.write_text(json.dumps({**json.loads(path.read_text()), "data": "mnist-5k", "config_hash": other}))
        return code

    monkeypatch.setattr(reproduction, "train_in_subprocess", run)
    answer = script("reproduce.py", "paper=ram", "rows=[6]", "seeds=[1]")
    assert answer.code == 1
    assert "left no finished record" in answer.err
    assert not list(Path("runs").rglob("results/*"))


def test_curve_is_drawn_only_for_rows_with_equal_length(script, trained, monkeypatch, composed):
    honest = reproduction.train_in_subprocess

    def run(arguments):
        code = honest(arguments)
        folder = Path("runs", "ram", f"run{len(trained)}")
        found = {**json.loads((folder / "status.json").read_text()), "data": composed(arguments)["env"]}
        (folder / "status.json").write_text(json.dumps(found))
        (folder / "metrics.csv").write_text("env_steps,eval_return_mean\n4000,20\n8000,475\n")
        return code

    monkeypatch.setattr(reproduction, "train_in_subprocess", run)
    small = ["paper=cartpole", "budget=smoke", "seeds=[1,2]"]
    assert "curve: runs/smoke-results/policy_gradient_cartpole.png" in script("reproduce.py", *small).out
    stopping = script("reproduce.py", *small, "rows=[acrobot]")
    assert (stopping.code, "curve:" in stopping.out) == (0, False)


@pytest.mark.usefixtures("mnist")
def test_failed_run_ends_the_command_in_a_sentence(script, monkeypatch):
    monkeypatch.setattr(reproduction, "train_in_subprocess", lambda arguments: 1)
    answer = script("reproduce.py", "paper=ram", "budget=smoke", "rows=[6]", "seeds=[1]")
    assert answer.code == 1
    assert "the same command resumes it" in answer.err
    assert "Traceback" not in answer.err


def test_nothing_is_run_without_mnist(script, trained, monkeypatch):
    def find():
        raise DatasetUnavailableError("no files, no network")

    monkeypatch.setattr("zoo.cli._reproduce.find_mnist", find)
    answer = script("reproduce.py", "paper=ram")
    assert (answer.code, trained) == (1, [])
    assert "Error: no files, no network" in answer.err


@pytest.mark.parametrize(("root", "named"), [(None, "ZOO_DATA is not set"), ("nowhere", "there is no nowhere/")])
def test_nothing_is_run_without_the_data_of_a_posterior(root, named, script, trained, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    if root is not None:
        monkeypatch.setenv("ZOO_DATA", root)
    answer = script("reproduce.py", "paper=bbvi", "rows=[kidiq]")
    assert (answer.code, trained) == (1, [])
    assert named in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("paper", PAPERS)
def test_help_names_each_paper(paper):
    help_text = arguments_help(ReproduceConfig, "")
    assert f"``{paper}``" in help_text.partition("budget")[0]


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], f"paper must be given: paper=... (name of the table: {', '.join([*PAPERS][:-1])} or {[*PAPERS][-1]})"),
        (["paper=rma"], "there is no paper 'rma'; there are: ram"),
        (["paper=ram", "budget=huge"], "there is no budget 'huge'; choose one of full, smoke"),
        (["paper=ram", "rows=[8]"], "there is no row '8'; there are: 2, 3,"),
        (["paper=ram", "seeds=[one]"], "the arguments are paper=..."),
        (["paper=ram", "row=6"], "the arguments are paper=..."),
    ],
)
def test_mistake_is_answered_in_a_sentence_and_runs_nothing(arguments, named, script, trained):
    answer = script("reproduce.py", *arguments)
    assert (answer.code, trained) == (1, [])
    assert named in answer.err
    assert "Traceback" not in answer.err
