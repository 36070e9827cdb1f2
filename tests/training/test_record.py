import json
import math
import subprocess
import time

import pytest
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from zoo.training import _record as record
from zoo.training import config_hash, read_status, write_json
from zoo.training._record import RunRecord

CONFIG = {"seed": 3, "model": {"lr": 0.1}, "logger": {"name": "csv"}, "resume": None}


class TestConfigHash:
    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 4},
            {"model": {"lr": 0.2}},
            {"model": {"lr": 0.1, "num_glimpses": 6}},
            {"trainer": {}},
            {"env": "CartPole-v1"},
            {"program": "eight_schools"},
        ],
    )
    def test_hash_differs_with_everything_that_determines_the_result(self, change):
        assert config_hash({**CONFIG, **change}) != config_hash(CONFIG)

    @pytest.mark.parametrize("change", [{"logger": {"name": "wandb"}}, {"resume": "runs/ram/a"}])
    def test_hash_ignores_logger_and_resume(self, change):
        assert config_hash({**CONFIG, **change}) == config_hash(CONFIG)

    def test_hash_ignores_optional_entries_that_are_not_set(self):
        assert config_hash({**CONFIG, "env": None, "program": None}) == config_hash(CONFIG)

    def test_hash_ignores_the_order_of_keys(self):
        assert config_hash(dict(reversed(CONFIG.items()))) == config_hash(CONFIG)


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the machine was started, to be set by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def recorded(folder, command="command", data=None):
    """A record of a run that has begun."""
    return RunRecord(folder, CONFIG, command, data).begin()


class TestRunRecord:
    def test_record_describes_the_run_from_its_start(self, tmp_path):
        recorded(tmp_path, "python scripts/train.py model=ram", "mnist-5k")
        status = read_status(tmp_path / "status.json")
        assert status["state"] == "running"
        assert status["recipe_hash"] == config_hash({**CONFIG, "seed": None}) != status["config_hash"]
        assert status["command"] == "python scripts/train.py model=ram"
        assert (status["seed"], status["data"], status["config_hash"]) == (3, "mnist-5k", config_hash(CONFIG))
        assert status["versions"].keys() >= {"python", "torch", "pytorch-lightning"}
        assert status["hardware"]["cpus"] > 0
        assert status.keys() >= {"exit_reason", "git_commit", "started", "wall_seconds", "metrics"}

    def test_record_holds_final_state_and_metrics(self, tmp_path):
        recorded(tmp_path).finish("finished", "all epochs done", {"test_error": 0.01})
        status = read_status(tmp_path / "status.json")
        assert (status["state"], status["exit_reason"]) == ("finished", "all epochs done")
        assert status["metrics"] == {"test_error": 0.01}

    def test_wall_time_adds_up_over_resumes_without_the_time_between(self, tmp_path, clock):
        first = recorded(tmp_path, "first command")
        clock[0] += 60
        first.finish("interrupted", "Ctrl-C")
        clock[0] += 86400
        second = recorded(tmp_path, "second command")
        clock[0] += 30
        second.finish("finished", "done")
        status = read_status(tmp_path / "status.json")
        assert status["wall_seconds"] == 90
        assert status["command"] == "first command"

    def test_record_keeps_the_first_start_time(self, tmp_path):
        recorded(tmp_path)
        status = read_status(tmp_path / "status.json")
        write_json(tmp_path / "status.json", {**status, "started": "2026-01-01T00:00:00+00:00"})
        recorded(tmp_path)
        assert read_status(tmp_path / "status.json")["started"] == "2026-01-01T00:00:00+00:00"

    def test_finished_record_names_no_host_or_process(self, tmp_path):
        recorded(tmp_path).finish("finished", "all epochs done")
        status = read_status(tmp_path / "status.json")
        assert (status["host"], status["process"]) == (None, None)

    def test_folder_with_another_run_is_an_error_and_unchanged(self, tmp_path):
        recorded(tmp_path).finish("finished", "done")
        before = (tmp_path / "status.json").read_bytes()
        with pytest.raises(ValueError, match="holds a run of another configuration; choose another folder"):
            RunRecord(tmp_path, {**CONFIG, "seed": 4}, "command")
        assert (tmp_path / "status.json").read_bytes() == before


class TestReadStatus:
    @pytest.mark.parametrize("content", [b"", b'{"state": "fin', b"\xff\xfe\x00", b"[" * 100_000])
    def test_damaged_record_is_an_error_with_file_and_remedy(self, tmp_path, content):
        (tmp_path / "status.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"status\.json is damaged .*; delete it and run again"):
            read_status(tmp_path / "status.json")

    @pytest.mark.parametrize("content", [[], {}, {"state": "finished"}, 3])
    def test_file_of_another_format_is_an_error(self, tmp_path, content):
        (tmp_path / "status.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"status\.json is not a run record; delete it and run again"):
            read_status(tmp_path / "status.json")

    @pytest.mark.parametrize(
        ("part", "value", "said"),
        [
            ("state", "sleeping", "state 'sleeping'"),
            ("state", 1, "state is 1"),
            ("wall_seconds", "a while", "wall_seconds is 'a while'"),
            ("wall_seconds", True, "wall_seconds is True"),
            ("wall_seconds", math.nan, "state 'running' after nan s"),
            ("wall_seconds", -1, "state 'running' after -1 s"),
            ("metrics", [1], r"metrics is \[1\]"),
            ("metrics", {"error": None}, "error is None"),
            ("seed", "one", "seed is 'one'"),
            ("versions", None, "versions is None"),
        ],
    )
    def test_field_of_wrong_type_is_named(self, part, value, said, tmp_path):
        recorded(tmp_path)
        status = read_status(tmp_path / "status.json")
        write_json(tmp_path / "status.json", {**status, part: value})
        with pytest.raises(ValueError, match=rf"status\.json is damaged \({said}.*\); delete it and run again"):
            read_status(tmp_path / "status.json")

    @pytest.mark.parametrize("part", ["metrics", "wall_seconds"])
    def test_missing_field_is_named(self, part, tmp_path):
        recorded(tmp_path)
        status = read_status(tmp_path / "status.json")
        del status[part]
        write_json(tmp_path / "status.json", status)
        with pytest.raises(ValueError, match=f"it lacks {part}"):
            read_status(tmp_path / "status.json")


def test_only_rank_zero_writes_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    recorded(tmp_path).finish("finished", "done")
    assert list(tmp_path.iterdir()) == []


def test_changed_code_is_marked_beside_the_commit_but_new_records_are_not(monkeypatch, tmp_path):
    for file in ("zoo/record.py", "docs/results/ram-seed1.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("before")
    monkeypatch.setattr(record, "__file__", str(tmp_path / "zoo" / "record.py"))
    as_someone = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for command in (["init", "-q"], ["add", "."], [*as_someone, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = record.git_commit()
    (tmp_path / "docs/results/ram-seed1.json").write_text("after")
    assert record.git_commit() == clean
    (tmp_path / "zoo/record.py").write_text("after")
    assert record.git_commit() == f"{clean}+changes"


def test_code_outside_a_checkout_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    assert record.git_commit() is None


def test_package_inside_another_repository_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "__file__", str(tmp_path / "venv" / "record.py"))
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "record.py").touch()
    as_someone = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for command in (["init", "-q"], [*as_someone, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    assert record.git_commit() is None
