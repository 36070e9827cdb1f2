import os
import pickle

import pytest
import torch

from zoo.training import LoadableModule, read_checkpoint
from zoo.training._checkpoint import AtomicCheckpointIO

GOOD = {"state_dict": {"weight": torch.arange(3.0)}, "hyper_parameters": {}, "model": "Noisy", "config": {}}
NEXT = {**GOOD, "model": "Other"}


class Killed(BaseException):
    """The process ends here, without any clean-up."""


@pytest.fixture
def path(tmp_path):
    """A checkpoint that was saved well."""
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(GOOD, path)
    return path


class TestAtomicCheckpointIO:
    @pytest.fixture
    def killed_half_way(self, monkeypatch):
        """Half of what `torch.save` writes reaches the disk."""
        save = torch.save

        def half(content, file):
            save(content, file)
            if isinstance(file, str | os.PathLike):
                os.truncate(file, os.path.getsize(file) // 2)
            else:
                file.truncate(file.tell() // 2)
            raise Killed

        monkeypatch.setattr(torch, "save", half)

    def test_checkpoint_is_read_as_it_was_saved(self, path, differences):
        assert differences(read_checkpoint(path), GOOD) == []
        AtomicCheckpointIO().save_checkpoint(NEXT, path)
        assert read_checkpoint(path)["model"] == "Other"
        assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]

    def test_kill_during_a_write_leaves_the_previous_checkpoint(self, path, killed_half_way, differences):
        with pytest.raises(Killed):
            AtomicCheckpointIO().save_checkpoint(NEXT, path)
        assert differences(read_checkpoint(path), GOOD) == []

    def test_kill_during_a_plain_save_loses_the_checkpoint(self, path, killed_half_way):
        with pytest.raises(Killed):
            torch.save(NEXT, path)
        with pytest.raises(ValueError, match="is damaged"):
            read_checkpoint(path)

    def test_kill_before_the_rename_leaves_the_previous_checkpoint(self, path, monkeypatch):
        def kill(*paths):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", kill)
            with pytest.raises(Killed):
                AtomicCheckpointIO().save_checkpoint(NEXT, path)
        assert read_checkpoint(path)["model"] == "Noisy"

    def test_remains_of_an_earlier_kill_are_overwritten(self, path):
        path.with_name("last.ckpt.unfinished").write_bytes(b"half a checkpoint")
        AtomicCheckpointIO().save_checkpoint(NEXT, path)
        assert read_checkpoint(path)["model"] == "Other"

    def test_file_is_synced_before_the_rename(self, path, monkeypatch):
        order = []
        for name in ("fsync", "replace"):
            call = getattr(os, name)
            monkeypatch.setattr(os, name, lambda *args, name=name, call=call: (order.append(name), call(*args)))
        AtomicCheckpointIO().save_checkpoint(NEXT, path)
        assert order == ["fsync", "replace"]


def test_checkpoint_holds_model_name_and_configuration(train, tmp_path):
    train(tmp_path)
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint["model"] == "Noisy"
    assert checkpoint["config"]["seed"] == 1


class Trap:
    """A pickled object that runs code when it is unpickled: it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class TestReadCheckpoint:
    def test_checkpoint_of_any_or_the_expected_model_is_read(self, path):
        assert read_checkpoint(path)["model"] == read_checkpoint(str(path), "Noisy")["model"] == "Noisy"

    def test_missing_checkpoint_is_an_error_that_says_where_they_are(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none\.ckpt; .*checkpoints/last\.ckpt"):
            read_checkpoint(tmp_path / "none.ckpt")

    def test_folder_is_no_checkpoint(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
            read_checkpoint(tmp_path)

    @pytest.mark.parametrize("kept", [0, 1, 100, -100, -1])
    def test_truncated_checkpoint_is_an_error_with_file_and_remedy(self, path, kept):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged or not a checkpoint \(\w+\); use the run's other"):
            read_checkpoint(path)

    def test_file_of_another_format_is_an_error(self, path):
        path.write_text("Dear diary")
        with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
            read_checkpoint(path)

    @pytest.mark.parametrize("content", [torch.zeros(3), {"state_dict": {}}, [GOOD]])
    def test_checkpoint_of_another_project_is_an_error(self, path, content):
        torch.save(content, path)
        with pytest.raises(ValueError, match="is a PyTorch file, but not a checkpoint of this project"):
            read_checkpoint(path)

    def test_checkpoint_of_another_model_is_an_error_that_names_both(self, path):
        with pytest.raises(ValueError, match="is a checkpoint of Noisy, not of RecurrentAttention"):
            read_checkpoint(path, "RecurrentAttention")

    @pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
    def test_code_in_a_checkpoint_is_refused_and_not_run(self, path, tmp_path, save):
        save({**GOOD, "config": Trap(tmp_path / "sprung")}, path)
        with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
            read_checkpoint(path)
        assert not (tmp_path / "sprung").exists()

    def test_code_in_a_checkpoint_is_run_by_plain_torch_load(self, path, tmp_path):
        torch.save({**GOOD, "config": Trap(tmp_path / "sprung")}, path)
        torch.load(path, weights_only=False)
        assert (tmp_path / "sprung").exists()


class Scaled(LoadableModule):
    """A module of one weight and two options."""

    def __init__(self, size, factor=2.0):
        super().__init__()
        self.factor = factor
        self.weight = torch.nn.Parameter(torch.zeros(size))


class TestLoadableModule:
    @pytest.fixture
    def saved(self, tmp_path):
        """Save a module of that kind with other contents, if any are given."""

        def save(**contents):
            good = {"state_dict": {"weight": torch.arange(3.0)}, "model": "Scaled", "config": {}}
            path = tmp_path / "last.ckpt"
            AtomicCheckpointIO().save_checkpoint(
                {**good, "hyper_parameters": {"size": 3, "factor": 5.0}, **contents}, path
            )
            return path

        return save

    def test_module_is_loaded_with_options_and_weights_in_eval_mode(self, saved):
        module = Scaled.load(saved())
        assert (module.factor, module.weight.tolist(), module.training) == (5.0, [0, 1, 2], False)

    def test_overrides_replace_saved_options(self, saved):
        assert Scaled.load(saved(), factor=7.0).factor == 7

    @pytest.mark.parametrize(
        ("contents", "said"),
        [
            ({"model": "Other"}, "is a checkpoint of Other, not of Scaled"),
            ({"hyper_parameters": {"size": 3}}, "is of another version of Scaled: options factor"),
            (
                {"hyper_parameters": {"size": 3, "factor": 1.0, "old": 0}},
                "is of another version of Scaled: options old",
            ),
            ({"state_dict": {"weight": torch.zeros(4)}}, "is of another version of Scaled, with other layers"),
            ({"state_dict": {}}, "is of another version of Scaled, with other layers"),
        ],
    )
    def test_checkpoint_of_another_version_is_an_error(self, contents, said, saved):
        with pytest.raises(ValueError, match=said):
            Scaled.load(saved(**contents))
