import pytest

from zoo.inference.programs import find_program
from zoo.inference.programs._registry import ProgramFile, annotate_errors, parse_program_file

CODE = """
import pyro
import pyro.distributions as dist
import torch

def model():
    pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=torch.tensor(1.0))

def guide():
    pyro.sample("z", dist.Normal(pyro.param("mean", torch.zeros(())), 1.0))

class Guide:
    def __call__(self):
        return "called"

class Needy:
    def __init__(self, wanted):
        pass

constant = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(CODE)
    return path


def write(path, code):
    path.write_text(code)
    return f"{path}:model:guide"


class TestParsing:
    def test_program_file_is_parsed_into_path_and_two_names(self):
        path, model, guide = parse_program_file("some/where.py:model:Guide")
        assert (str(path), model, guide) == ("some/where.py", "model", "Guide")

    @pytest.mark.parametrize("name", ["eight_schools", "nonsense"])
    def test_name_without_file_parses_to_none(self, name):
        assert parse_program_file(name) is None

    @pytest.mark.parametrize(
        "text", ["own.py", "own.py:model", "own:model", "own.py:model:", "own.py:a b:guide", "a:b"]
    )
    def test_incomplete_program_file_raises(self, text):
        with pytest.raises(ValueError, match=r"must be given as program=FILE\.py:MODEL:GUIDE, got program="):
            parse_program_file(text)

    def test_path_with_colons_is_parsed(self):
        assert isinstance(parse_program_file("c:/own.py:model:guide"), ProgramFile)


class TestTrust:
    def test_file_without_trust_is_not_run(self, tmp_path):
        text = write(tmp_path / "own.py", f"open({str(tmp_path / 'sprung')!r}, 'w')")
        with pytest.raises(ValueError, match=r"runs the code in .*own\.py with your permissions; read it, and add"):
            find_program(text, trust=False)
        assert not (tmp_path / "sprung").exists()

    def test_file_with_trust_is_run(self, tmp_path):
        text = write(tmp_path / "own.py", f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nmodel = guide = print")
        find_program(text, trust=True)
        assert (tmp_path / "sprung").exists()


class TestProgram:
    def test_program_has_functions_of_file_and_no_data(self, file):
        program = find_program(f"{file}:model:guide", trust=True)
        assert program.load(None) == ()
        assert program.model.__name__ == "model"
        assert program.guide().__name__ == "guide"
        assert program.reference is None

    def test_guide_class_is_instantiated(self, file):
        assert find_program(f"{file}:model:Guide", trust=True).guide()() == "called"

    def test_file_may_define_dataclasses(self, tmp_path):
        code = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int' = 1\nmodel = guide = A()"
        with pytest.raises(ValueError, match="has no function or module 'model'; it has: dataclass, A"):
            find_program(write(tmp_path / "own.py", code), trust=True)


class TestMistakes:
    def test_missing_file_is_reported(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"file .*none\.py does not exist; give the program as program=FILE\.py"
        ):
            find_program(f"{tmp_path}/none.py:model:guide", trust=True)

    @pytest.mark.parametrize("name", ["modle", "constant"])
    def test_missing_function_is_reported_with_existing_ones(self, name, file):
        with pytest.raises(ValueError, match=rf"has no function or module '{name}'; it has: model, guide, Guide"):
            find_program(f"{file}:{name}:guide", trust=True)

    def test_nearest_function_name_is_suggested(self, file):
        with pytest.raises(ValueError, match=r"Did you mean model\?"):
            find_program(f"{file}:modle:guide", trust=True)

    def test_syntax_error_is_reported_with_line(self, tmp_path):
        with pytest.raises(ValueError, match=r"own\.py, line 2 is not Python: "):
            find_program(write(tmp_path / "own.py", "x = 1\ndef model(:\n"), trust=True)

    def test_failing_code_is_reported_with_line(self, tmp_path):
        with pytest.raises(ValueError, match=r"own\.py, line 3: ZeroDivisionError: division by zero"):
            find_program(write(tmp_path / "own.py", "\n\n1 / 0"), trust=True)

    def test_class_with_arguments_is_reported(self, file):
        with pytest.raises(ValueError, match=r"own\.py: TypeError: .*missing 1 required positional argument: 'wanted'"):
            find_program(f"{file}:model:Needy", trust=True)

    def test_file_that_is_not_python_is_reported(self, tmp_path):
        text = write(tmp_path / "own.pyx", "")
        with pytest.raises(ValueError, match=r"its name must end in \.py"):
            find_program(text, trust=True)


class TestFailures:
    def test_error_is_annotated_with_last_line_reached_in_file(self, tmp_path, file):
        def call(text):
            exec(compile(text, file, "exec"), {"fail": lambda: {}["key"]})

        with pytest.raises(ValueError, match=r"own\.py, line 2: KeyError: 'key'"), annotate_errors(file):
            call("\nfail()")

    def test_errors_outside_file_are_unchanged(self, file):
        with pytest.raises(KeyError), annotate_errors(file):
            {}["key"]
