import errno
import json
import os

import pytest

from zoo.training import write_json, write_text


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "status.json"
    write_json(path, {"state": "running"})

    def kill(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"state": "finished"})
    assert json.loads(path.read_text()) == {"state": "running"}


class TestWhatCannotBeWritten:
    @pytest.mark.parametrize(
        ("number", "said"),
        [
            (errno.ENOSPC, "No space left on device.*: make room on the disk; a run goes on from its last checkpoint"),
            (errno.EDQUOT, "Disk quota exceeded.*: make room on the disk"),
            (errno.EROFS, "Read-only file system.*: choose a folder that can be written to"),
            (errno.EACCES, "Permission denied.*: choose a folder that can be written to"),
        ],
    )
    def test_is_said_in_a_sentence_and_leaves_what_was_there(self, number, said, tmp_path, monkeypatch):
        path = tmp_path / "status.json"
        write_text(path, "before")

        def fail(*paths):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match=rf"status\.json cannot be written \({said}"):
            write_text(path, "after")
        assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"status.json": "before"}

    def test_a_folder_that_was_removed_is_not_made_anew(self, tmp_path):
        with pytest.raises(OSError, match="its folder is not there, or was removed meanwhile"):
            write_text(tmp_path / "gone" / "metrics.csv", "step\n")
        assert not (tmp_path / "gone").exists()

    def test_neither_is_one_whose_path_leads_through_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="part of its path is a file, not a folder"):
            write_text(tmp_path / "file" / "metrics.csv", "step\n")
