import math
import os
from pathlib import Path

import pytest
import torch

from examples.patients.labs import (
    Labs,
    hold_out_labs,
    lab_means,
    load_pbc,
    pad_visits,
    read_labs,
    rescale,
    split_labs,
    split_patients,
)

ZOO_DATA = os.environ.get("ZOO_DATA", "")
HEADER = "id,day,sex,bili,alk.phos"
NAMES = ("bili", "alk.phos")


@pytest.fixture
def write(tmp_path):
    """Write rows below a header, and give the path."""

    def to_file(*rows, header=HEADER):
        path = tmp_path / "labs.csv"
        path.write_bytes("\n".join([header, *rows, ""]).encode(errors="surrogatepass"))
        return path

    return to_file


@pytest.fixture
def many() -> Labs:
    """Thirty patients with one to six visits; the first lab tells the patient, the second is often missing."""
    noise = torch.Generator().manual_seed(1)
    sequences = []
    for patient in range(30):
        seen = torch.rand(1 + patient % 6, generator=noise) < 0.5
        sequences.append([[float(patient + 1), 7.0 if s else math.nan] for s in seen.tolist()])
    return pad_visits(sequences, NAMES)


def test_visits_are_sorted_by_time_and_padded_and_patients_keep_their_order(write):
    labs = read_labs(write("b,9,f,3,30", "a,0,m,1,10", "b,-1,f,2,20"), NAMES)
    assert labs.values[..., 0].tolist() == [[2, 3], [1, 1]]
    assert labs.values[..., 1].tolist() == [[20, 30], [10, 1]]
    assert labs.attended.tolist() == [[True, True], [True, False]]
    assert torch.equal(labs.observed, labs.attended[..., None].expand(2, 2, 2))
    assert labs.names == NAMES


@pytest.mark.parametrize("field", ["", "NA"])
def test_missing_lab_is_not_observed_and_has_the_value_one(write, field):
    labs = read_labs(write(f"1,0,m,{field},10"), NAMES)
    assert labs.observed.tolist() == [[[False, True]]]
    assert labs.values.tolist() == [[[1, 10]]]
    assert labs.attended.all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,0,m,0,10", "line 2: bili must be positive, got 0"),
        ("1,0,m,-2,10", "line 2: bili must be positive, got -2"),
        ("1,0,m,nan,10", "line 2: bili must be a finite number, got 'nan'"),
        ("1,0,m,inf,10", "line 2: bili must be a finite number"),
        ("1,0,m,high,10", "line 2: bili must be a finite number, got 'high'"),
        ("1,,m,2,10", "line 2: day must be a finite number, got ''"),
        ("1,0,m,2", "line 2 is cut short: it must have a field for each column"),
        (",0,m,2,10", "line 2 has no patient in the column id"),
        ("1,0,m,\ud800,10", "line 2: bili must be a finite number"),
    ],
)
def test_lab_that_is_not_a_positive_number_raises_with_its_line(write, row, message):
    with pytest.raises(ValueError, match=message):
        read_labs(write(row), NAMES)


def test_other_mistakes_in_a_file_are_named(write, tmp_path):
    with pytest.raises(ValueError, match=r"has no column alk\.phos; its columns are"):
        read_labs(write("1,0,m,2", header="id,day,sex,bili"), NAMES)
    with pytest.raises(ValueError, match="has no column id, day"):
        read_labs(write(header=""), NAMES)
    with pytest.raises(ValueError, match="contains no visits"):
        read_labs(write(), NAMES)
    with pytest.raises(ValueError, match="line 3: patient 1 has two visits at day 5"):
        read_labs(write("1,5,m,2,10", "1,5,m,3,11"), NAMES)
    with pytest.raises(FileNotFoundError, match="there are no labs at"):
        read_labs(tmp_path / "nothing.csv", NAMES)


def test_split_of_patients_is_disjoint_and_complete(many):
    train, test = split_patients(many, 8, seed=3)
    owners = [set(part.values[:, 0, 0].tolist()) for part in (train, test)]
    assert [len(part) for part in owners] == [22, 8]
    assert not owners[0] & owners[1]
    assert owners[0] | owners[1] == set(range(1, 31))
    again, other = split_patients(many, 8, seed=3), split_patients(many, 8, seed=4)
    assert torch.equal(again[1].values, test.values)
    assert not torch.equal(other[1].values, test.values)


@pytest.mark.parametrize("count", [0, 30, 31, -1])
def test_split_with_an_empty_side_raises(many, count):
    with pytest.raises(ValueError, match="must number from 1 to 29"):
        split_patients(many, count, seed=0)


def test_quarter_of_the_labs_of_each_patient_is_held_out_and_not_shown(many):
    shown, held_out = hold_out_labs(many, 0.25, seed=0)
    assert not (shown.observed & held_out.observed).any()
    assert torch.equal(shown.observed | held_out.observed, many.observed)
    total, count = (part.observed.sum((1, 2)) for part in (many, held_out))
    assert torch.equal(count, (0.25 * total).round().long())
    assert (shown.values[~shown.observed] == 1).all()
    assert torch.equal(shown.attended, many.attended)


def test_held_out_labs_are_random(many):
    drawn = sum(hold_out_labs(many, 0.25, seed)[1].observed.float() for seed in range(200)) / 200
    first = many.observed.sum((1, 2)) == 12
    assert ((drawn[first] > 0.1) == many.observed[first]).all()
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        hold_out_labs(many, 1.5, seed=0)


def test_labs_are_divided_by_their_mean_over_the_training_patients(many):
    split = split_labs(many, 8, seed=0)
    assert torch.allclose(lab_means(split.train), torch.ones(2))
    train, test = split_patients(many, 8, seed=0)
    unit = train.values[..., 0][train.observed[..., 0]].mean()
    shown = split.shown.observed[..., 0]
    assert torch.allclose(split.shown.values[..., 0][shown] * unit, test.values[..., 0][shown])
    assert (split.train.values[~split.train.observed] == 1).all()


def test_lab_never_observed_in_training_raises(many):
    empty = many._replace(observed=many.observed & torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"never observed in the training patients: alk\.phos"):
        lab_means(empty)


def test_concatenate_appends_patients(many):
    train, test = split_patients(many, 8, seed=0)
    both = train.concatenate(test)
    assert torch.equal(both.values[22:], test.values)
    assert torch.equal(both.attended[:22], train.attended)
    assert torch.equal(rescale(both, torch.ones(2)).values, both.values)


@pytest.mark.skipif(not Path(ZOO_DATA, "pbc", "pbcseq.csv").is_file(), reason="needs the real file: set ZOO_DATA")
def test_numbers_of_real_patients_visits_and_labs_are_the_published_ones():
    labs = read_labs(Path(ZOO_DATA, "pbc", "pbcseq.csv"))
    assert labs.values.shape == (312, 16, 7)
    assert labs.attended.sum() == 1945
    missing = labs.attended.sum() - labs.observed.sum((0, 1))
    assert missing.tolist() == [0, 821, 0, 60, 0, 73, 0]
    split = load_pbc(Path(ZOO_DATA))
    assert [len(part.values) for part in split] == [250, 62, 62]
    share = split.held_out.observed.sum() / (split.held_out.observed | split.shown.observed).sum()
    assert 0.24 < share < 0.26
