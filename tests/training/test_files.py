import errno
import json
import multiprocessing
import os
import signal

import pytest

from zoo.training import write_json
from zoo.training._files import folder_lock, write_text


def test_file_is_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "status.json"
    write_json(path, {"state": "running"})

    def kill(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"state": "finished"})
    assert json.loads(path.read_text()) == {"state": "running"}


class TestWriteErrors:
    @pytest.mark.parametrize(
        ("number", "said"),
        [
            (errno.ENOSPC, "No space left on device.*: free space on the disk; resume=RUN continues a run"),
            (errno.EDQUOT, "Disk quota exceeded.*: free space on the disk"),
            (errno.EROFS, "Read-only file system.*: choose a folder that can be written to"),
            (errno.EACCES, "Permission denied.*: choose a folder that can be written to"),
        ],
    )
    def test_unwritable_file_is_an_error_and_keeps_its_content(self, number, said, tmp_path, monkeypatch):
        path = tmp_path / "status.json"
        write_text(path, "before")

        def fail(*paths):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match=rf"status\.json cannot be written \({said}"):
            write_text(path, "after")
        assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"status.json": "before"}

    def test_removed_folder_is_not_recreated(self, tmp_path):
        with pytest.raises(OSError, match="its folder is not there, or was removed meanwhile"):
            write_text(tmp_path / "gone" / "metrics.csv", "step\n")
        assert not (tmp_path / "gone").exists()

    def test_folder_below_a_file_is_not_created(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="part of its path is a file, not a folder"):
            write_text(tmp_path / "file" / "metrics.csv", "step\n")


def hold(folder, connection):
    with folder_lock(folder):
        connection.send("held")
        connection.recv()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv() == "held"
    yield process
    process.kill()
    process.join()


def test_folder_in_use_by_another_process_is_refused(holder, tmp_path):
    with (
        pytest.raises(ValueError, match=r"another process is at work in .*; stop it first, or wait"),
        folder_lock(tmp_path),
    ):
        pass


def test_killed_process_holds_no_lock(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / ".lock").exists()
    with folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def race(folder, start, ends):
    start.wait()
    try:
        with folder_lock(folder):
            (folder / "inside").touch(exist_ok=False)
            (folder / "inside").unlink()
        ends.put("worked")
    except ValueError:
        ends.put("refused")
    except BaseException as error:
        ends.put(repr(error))


def test_lock_is_held_by_one_of_many_processes_at_a_time(tmp_path):
    context = multiprocessing.get_context("fork")
    ends = context.Queue()
    for _ in range(3):
        start = context.Barrier(6)
        processes = [context.Process(target=race, args=(tmp_path, start, ends)) for _ in range(6)]
        for process in processes:
            process.start()
        found = [ends.get() for _ in processes]
        for process in processes:
            process.join()
        assert set(found) <= {"worked", "refused"}
        assert "worked" in found


def test_folder_that_cannot_be_created_is_an_error_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"file/run cannot be written .*: part of its path is a file"),
        folder_lock(tmp_path / "file" / "run"),
    ):
        pass


def test_folder_removed_while_locked_is_no_error(tmp_path):
    with folder_lock(tmp_path / "run"):
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run").rmdir()
    assert not (tmp_path / "run").exists()
