import errno
import json
import os

import pytest

from zoo.training import write_json
from zoo.training._files import write_text


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
