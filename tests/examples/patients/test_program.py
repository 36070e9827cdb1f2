import pytest

from examples.patients import PATIENT_PROGRAMS, FactorFamily, program_of, simulate


def test_labs_of_the_training_patients_are_read_from_the_data_folder(zoo_data):
    (labs,) = PATIENT_PROGRAMS["gamma_gamma"].load(zoo_data)
    assert labs.values.shape == (70 - 62, 3, 7)


def test_patients_are_simulated_without_a_data_folder():
    family = FactorFamily(series=True, positive=True, factors=2)
    (labs,) = program_of(family).load(None)
    assert (labs.values == simulate(family, 200, 7, seed=0)[0].values).all()


def test_description_names_the_model_and_its_paper():
    assert PATIENT_PROGRAMS["gamma_normal_ts"].description == (
        "factors of patients' labs, gamma_normal_ts; Ranganath, Gerrish & Blei 2014"
    )


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pbcseq\.csv"):
        PATIENT_PROGRAMS["gamma_normal_ts"].load(tmp_path)
