import json
import math

import numpy as np
import pytest

from examples.patients import experiment
from examples.patients.labs import PBC_LABS
from examples.patients.sampler_benchmark import Curve


@pytest.fixture
def patients(tmp_path_factory, monkeypatch):
    """Seventy patients with one or two visits, where the script looks for them."""
    folder, noise = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    rows = [",".join(["id", "day", *PBC_LABS])]
    for patient in range(70):
        for visit in range(1 + patient % 2):
            labs = [math.exp(z) for z in noise.normal(size=len(PBC_LABS))]
            rows.append(",".join(map(str, [patient, 100 * visit, *labs])))
    (folder / "pbc").mkdir()
    (folder / "pbc" / "pbcseq.csv").write_text("\n".join(rows))
    monkeypatch.setenv("ZOO_DATA", str(folder))


def test_models_are_compared_and_the_record_contains_the_printed_summary(script, patients, tmp_path):
    answer = script("examples/patients/__main__.py", "part=models", "seeds=[1]", "budget=smoke")
    assert answer.code == 0, answer.err
    folder = tmp_path / "runs" / "patients-smoke"
    record = json.loads((folder / "models.json").read_text())
    assert (record["part"], record["seeds"], record["patients"]) == ("models", [1], 62)
    assert "\n".join(record["found"]) in answer.out
    assert answer.out.splitlines()[-2:] == [
        "results are in runs/patients-smoke/: models.json, models.csv, fits/",
        "A smoke run, to see that all works. These are no results.",
    ]
    assert len(list((folder / "fits").iterdir())) == 4


def test_smoke_run_of_the_curve_is_short(script, patients, tmp_path, monkeypatch):
    asked = []

    def method(family, split, seconds, seed):
        asked.append((seconds, seed))
        return Curve([1.0, 9.0], [-5.0, -2.0], 0.0, 7)

    monkeypatch.setattr(experiment, "METHODS", {"one": method})
    answer = script("examples/patients/__main__.py", "part=curve", "seeds=[5,6]", "budget=smoke")
    assert answer.code == 0, answer.err
    assert asked == [(6.0, 5)]
    assert json.loads((tmp_path / "runs" / "patients-smoke" / "curve.json").read_text())["seeds"] == [5]
    assert (tmp_path / "runs" / "patients-smoke" / "curve.png").is_file()


def test_other_labs_are_read_from_a_file_and_have_their_own_folder(script, monkeypatch, tmp_path):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    noise = np.random.default_rng(0)
    rows = [f"{patient},{visit},{math.exp(noise.normal())},x" for patient in range(10) for visit in range(4)]
    (tmp_path / "kidney.csv").write_text("\n".join(["id,day,urea,remark", *rows]))
    answer = script("examples/patients/__main__.py", "labs=kidney.csv", "columns=[urea]", "seeds=[1]", "budget=smoke")
    assert answer.code == 0, answer.err
    record = json.loads((tmp_path / "runs" / "patients-kidney-smoke" / "models.json").read_text())
    assert (record["labs"], record["patients"]) == ("kidney.csv", 2)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("part=all", "there is no part 'all'; choose one of models, curve"),
        ("budget=tiny", "there is no budget 'tiny'; choose one of full, smoke"),
        ("labs=nowhere.csv", "there are no labs at nowhere.csv"),
        ("columns=[]", "there must be at least one column of labs"),
        ("seeds=[]", "there must be at least one seed"),
        ("minuts=3", "the arguments are part=..., labs=..., columns=..., seeds=..., minutes=..., budget=..."),
    ],
)
def test_invalid_argument_is_one_sentence_and_leaves_no_file(script, patients, tmp_path, argument, sentence):
    answer = script("examples/patients/__main__.py", argument)
    assert answer.code == 1
    assert sentence in answer.err
    assert not list(tmp_path.iterdir())


def test_error_without_data_folder_names_zoo_data(script, monkeypatch, tmp_path):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    answer = script("examples/patients/__main__.py", "part=models")
    assert answer.code == 1
    assert "$ZOO_DATA/pbc/pbcseq.csv, but ZOO_DATA is not set" in answer.err
    assert not list(tmp_path.iterdir())
