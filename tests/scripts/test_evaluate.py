import json
import shutil

import pytest
from PIL import Image


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished("ram"), tmp_path / "run").relative_to(tmp_path)


def test_evaluation_prints_test_error_with_interval_and_controls(script, run):
    answer = script("evaluate.py", f"checkpoint={run}/checkpoints/last.ckpt")
    assert answer.code == 0
    metrics = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert f"{100 * metrics['test_error']:.2f} %" in answer.out
    assert "95 % interval" in answer.out
    assert "at random locations" in answer.out
    assert "of the same model at the center" in answer.out
    assert f"results are in {run}/" in answer.out
    assert all((run / name).is_file() for name in ("glimpses.png", "glimpses.gif", "misclassified.png"))


@pytest.mark.usefixtures("no_pictures")
def test_checkpoint_outside_a_run_gets_a_folder_next_to_it(script, run, tmp_path):
    shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "mine.ckpt")
    assert script("evaluate.py", "checkpoint=mine.ckpt").code == 0
    assert (tmp_path / "mine" / "evaluation.json").is_file()


def test_episode_is_rendered_on_request(script, finished, tmp_path):
    run = shutil.copytree(finished("policy_gradient"), tmp_path / "run").relative_to(tmp_path)
    answer = script("evaluate.py", f"checkpoint={run}/checkpoints/last.ckpt", "render=gif")
    assert answer.code == 0
    assert "episode.gif" in answer.out
    with Image.open(run / "episode.gif") as film:
        assert film.n_frames > 5


def test_rendering_a_model_without_episodes_is_an_error(script, run):
    answer = script("evaluate.py", f"checkpoint={run}/checkpoints/last.ckpt", "render=gif")
    assert answer.code == 1
    assert "this model plays no episodes: remove render" in answer.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["checkpoint=text.ckpt", "render=mp4"], ["can be rendered as gif, not as mp4"]),
        ([], ["checkpoint must be given: checkpoint=..."]),
        (["chekpoint=a"], ["chekpoint", "the arguments are checkpoint=..."]),
        (["checkpoint=a.ckpt", "location_policy=random"], ["location_policy", "the arguments are checkpoint=..."]),
        (["checkpoint=none/a.ckpt"], ["there is no checkpoint", "none/a.ckpt"]),
        (["checkpoint=text.ckpt"], ["text.ckpt is damaged or not a checkpoint"]),
    ],
)
def test_mistake_is_answered_in_a_sentence_and_writes_nothing(arguments, named, script, tmp_path):
    (tmp_path / "text.ckpt").write_text("Dear diary")
    answer = script("evaluate.py", *arguments)
    assert answer.code == 1
    assert all(words in answer.err for words in named)
    assert "Traceback" not in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["text.ckpt"]
