import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from zoo.data._paths import expand_user

PBC_LABS = ("bili", "chol", "albumin", "alk.phos", "ast", "platelet", "protime")
PBC_TEST_PATIENTS = 62
HELD_OUT = 0.25
MISSING = ("", "NA")


class Labs(NamedTuple):
    """Labs of patients at irregular visits, in the order of the visits and padded to the longest sequence.

    Example:
        >>> labs = Labs(torch.ones(2, 3, 1), torch.ones(2, 3, 1, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))
        >>> labs.of_patients(torch.tensor([1])).values.shape
        torch.Size([1, 3, 1])
    """

    values: Float[Tensor, "patients visits labs"]
    """1 where nothing was observed; those of real patients are positive."""
    observed: Bool[Tensor, "patients visits labs"]
    attended: Bool[Tensor, "patients visits"]
    """False in the padding behind a patient's last visit."""
    names: tuple[str, ...] = ()

    def of_patients(self, index: Int64[Tensor, " chosen"]) -> "Labs":
        """Return the labs of some patients, with the same padding."""
        return self._replace(values=self.values[index], observed=self.observed[index], attended=self.attended[index])

    def concatenate(self, other: "Labs") -> "Labs":
        """Append patients with the same padding."""
        return Labs(
            torch.cat([self.values, other.values]),
            torch.cat([self.observed, other.observed]),
            torch.cat([self.attended, other.attended]),
            self.names,
        )

    def restrict_observed(self, observed: Bool[Tensor, "patients visits labs"]) -> "Labs":
        """Mark all other labs as not observed."""
        return self._replace(values=self.values.where(observed, 1.0), observed=observed)


class LabSplit(NamedTuple):
    """Training patients, and test patients with shown and held-out labs."""

    train: Labs
    shown: Labs
    held_out: Labs
    """Same patients and visits as ``shown``, the other labs."""


def load_pbc(root: Path, seed: int = 0) -> LabSplit:
    """Return sequential labs of 312 patients with primary biliary cholangitis, 250 for training and 62 for testing.

    ``pbcseq`` of the R package survival: Therneau & Grambsch, "Modeling survival data", 2000; 1,945 visits, 7 labs.
    Each lab is divided by its mean over the training patients, so that it stays positive and is about 1. A quarter of
    the observed labs of each test patient is held out. Labs are not missing at random: fewer were taken near death.

    Args:
        root: folder that contains ``pbc/pbcseq.csv``.
        seed: seed of both splits.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.

    Example:
        >>> load_pbc(Path("data")).train.values.shape  # doctest: +SKIP
        torch.Size([250, 16, 7])
    """
    return split_labs(read_labs(expand_user(root) / "pbc" / "pbcseq.csv"), PBC_TEST_PATIENTS, seed)


def read_labs(path: Path, names: Sequence[str] = PBC_LABS, patient: str = "id", time: str = "day") -> Labs:
    """Read a CSV file with a row for each visit; an empty field or ``NA`` is a lab that was not taken.

    Patients are in the order of their first rows, the visits of each in the order of their times.

    Args:
        path: CSV file.
        names: columns of the labs.
        patient: column that identifies the patient.
        time: column with the time of the visit, in any unit.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column or a field is missing, a time is not a number, a lab is not a positive number, or two
            visits of one patient have the same time.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there are no labs at {path}; give the path of a CSV file with a row for each visit")
    visits: dict[str, dict[float, list[float]]] = {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file)
        if absent := [name for name in (patient, time, *names) if name not in (rows.fieldnames or ())]:
            raise ValueError(
                f"{path} has no column {', '.join(absent)}; its columns are {', '.join(rows.fieldnames or ())}. Name "
                "columns as the file does"
            )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if None in row.values():
                raise ValueError(
                    f"{where} is cut short: it must have a field for each column, empty if nothing is known"
                )
            if not row[patient]:
                raise ValueError(f"{where} has no patient in the column {patient}")
            sequence = visits.setdefault(row[patient], {})
            when = parse_number(row[time], f"{where}: {time}")
            if when in sequence:
                raise ValueError(f"{where}: patient {row[patient]} has two visits at {time} {row[time]}; join them")
            sequence[when] = [parse_lab(row[name], f"{where}: {name}") for name in names]
    if not visits:
        raise ValueError(f"{path} contains no visits")
    return pad_visits([[sequence[when] for when in sorted(sequence)] for sequence in visits.values()], tuple(names))


def parse_number(text: str, where: str) -> float:
    """Read a finite number.

    Raises:
        ValueError: it is not a finite number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, got {text!r}")
    return value


def parse_lab(text: str, where: str) -> float:
    """Read a positive number, or NaN where the lab was not taken.

    Raises:
        ValueError: it is not positive.
    """
    if text.strip() in MISSING:
        return math.nan
    if (value := parse_number(text, where)) <= 0:
        raise ValueError(f"{where} must be positive, got {text}")
    return value


def pad_visits(sequences: Sequence[Sequence[Sequence[float]]], names: tuple[str, ...]) -> Labs:
    """Pad sequences of visits; NaN marks a lab that was not taken.

    Example:
        >>> pad_visits([[[2.0], [math.nan]], [[4.0]]], ("bili",)).values.squeeze(-1)
        tensor([[2., 1.],
                [4., 1.]])
    """
    values = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(sequence).reshape(-1, len(names)) for sequence in sequences], True, math.nan
    )
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    observed = ~values.isnan()
    attended = torch.arange(values.shape[1]) < lengths[:, None]
    return Labs(values.where(observed, 1.0), observed, attended, names)


def split_labs(labs: Labs, test_patients: int, seed: int) -> LabSplit:
    """Split by patient, hold out a quarter of the labs of the test patients, and divide by the training means.

    Raises:
        ValueError: either side would have no patients, or a lab is never observed in the training patients.
    """
    train, test = split_patients(labs, test_patients, seed)
    shown, held_out = hold_out_labs(test, HELD_OUT, seed)
    means = lab_means(train)
    return LabSplit(*(rescale(part, means) for part in (train, shown, held_out)))


def split_patients(labs: Labs, test_patients: int, seed: int) -> tuple[Labs, Labs]:
    """Split patients into training and test patients at random.

    Raises:
        ValueError: either side would have no patients.
    """
    count = len(labs.values)
    if not 0 < test_patients < count:
        raise ValueError(f"the test patients must number from 1 to {count - 1}, got {test_patients}")
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    test, train = shuffled[:test_patients].sort().values, shuffled[test_patients:].sort().values
    return labs.of_patients(train), labs.of_patients(test)


def hold_out_labs(labs: Labs, fraction: float, seed: int) -> tuple[Labs, Labs]:
    """Split each patient's observed labs into shown ones and a fraction, rounded, that is held out.

    Raises:
        ValueError: ``fraction`` lies outside [0, 1].

    Example:
        >>> labs = pad_visits([[[1.0, 2.0], [3.0, 4.0]]], ("bili", "chol"))
        >>> shown, held_out = hold_out_labs(labs, 0.25, seed=0)
        >>> shown.observed.sum().item(), held_out.observed.sum().item()
        (3, 1)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"the fraction of labs to hold out must lie between 0 and 1, got {fraction}")
    observed = labs.observed.flatten(1)
    keys = torch.rand(observed.shape, generator=torch.Generator().manual_seed(seed)).where(observed, torch.inf)
    rank = keys.argsort(1).argsort(1)
    count = (fraction * observed.sum(1, keepdim=True)).round()
    held_out = (observed & (rank < count)).reshape(labs.observed.shape)
    return labs.restrict_observed(labs.observed & ~held_out), labs.restrict_observed(held_out)


def lab_means(labs: Labs) -> Float[Tensor, " labs"]:
    """Return the mean of each lab over its observed values.

    Raises:
        ValueError: a lab was never observed.
    """
    count = labs.observed.sum((0, 1))
    if (count == 0).any():
        never = [name for name, seen in zip(labs.names, count.tolist(), strict=True) if not seen]
        raise ValueError(f"these labs were never observed in the training patients: {', '.join(never)}; leave them out")
    return (labs.values * labs.observed).sum((0, 1)) / count


def rescale(labs: Labs, unit: Float[Tensor, " labs"]) -> Labs:
    """Divide each lab by its unit."""
    return labs._replace(values=(labs.values / unit).where(labs.observed, 1.0))
