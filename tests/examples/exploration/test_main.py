import csv
import json

from examples.exploration import learning_regret


def test_exploration_study_writes_plot_table_and_record(script, tmp_path):
    answer = script("examples/exploration/__main__.py", "episodes=300", "seeds=[1,2]")
    assert answer.code == 0
    assert [line.split(":")[0] for line in answer.out.splitlines()[:3]] == [
        "epsilon_greedy",
        "boltzmann",
        "proportional",
    ]
    assert "2 seeds, 95 % interval" in answer.out
    assert (tmp_path / "runs" / "regret" / "regret.png").is_file()
    record = json.loads((tmp_path / "runs" / "regret" / "regret.json").read_text())
    assert record["summaries"] == answer.out.splitlines()[:3]
    assert record["seeds"] == [1, 2]
    with (tmp_path / "runs" / "regret" / "regret.csv").open(newline="") as file:
        assert {(row["exploration"], row["seed"]) for row in csv.DictReader(file)} == {
            (name, seed) for name in ("epsilon_greedy", "boltzmann", "proportional") for seed in ("1", "2")
        }


def test_summary_of_an_exploration_is_printed_before_the_next_one_starts(script, capsys, monkeypatch):
    printed = {}

    def observed(mdp, name, episodes, seed):
        printed[name] = capsys.readouterr().out
        return learning_regret(mdp, name, episodes, seed)

    monkeypatch.setattr("examples.exploration.learning_regret", observed)
    assert script("examples/exploration/__main__.py", "episodes=300", "seeds=[1]").code == 0
    assert printed["epsilon_greedy"] == ""
    assert printed["boltzmann"].startswith("epsilon_greedy: ")
    assert printed["proportional"].startswith("boltzmann: ")


def test_unknown_argument_of_the_exploration_study_is_one_sentence_and_leaves_no_file(script, tmp_path):
    answer = script("examples/exploration/__main__.py", "epsiodes=300")
    assert answer.code == 1
    assert "the arguments are env=..., episodes=..., seeds=..." in answer.err
    assert not list(tmp_path.iterdir())
