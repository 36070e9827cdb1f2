import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from zoo.cli._command_line import read_command_line

STRANGE = [
    "a=b",
    "a,b",
    "~a",
    "a'b",
    "a b",
    "ü",
    "(a",
    "a(1)",
    "[a",
    "007",
    "null",
    "a#",
    "a\\",
    "a\\'",
    '"a',
    "{a}",
    "1e3",
]


class TestReadCommandLine:
    @pytest.mark.parametrize(
        ("argument", "complaint"),
        [
            ("model=rma", r"there is no model 'rma'; there are: .*ram.*\. Did you mean ram\?"),
            ("experiment=ram_mnist_28_66", r"there is no experiment .* Did you mean ram_mnist_28_6"),
            ("data=minst", r"there is no data 'minst'; there are: .*mnist.* Did you mean mnist\?"),
            ("+logger=csw", "there is no logger 'csw'"),
            ("model=null", "there is no model 'null'"),
            ("estimator=null", "there is no estimator 'null'; there are: enumeration, nvil, reinforce, vimco"),
            ("estimator=renforce", "there is no estimator 'renforce'; .* Did you mean reinforce?"),
            ("estimator=leave_one_out", "^leave_one_out is a baseline: set estimator.baseline=leave_one_out$"),
            ("estimator=optimal", "^optimal is a baseline: set estimator.baseline=optimal$"),
            ("estimator=constant", "^constant is a baseline: set estimator.baseline=NUMBER$"),
            ("model=1", "there is no model 1"),
            ("ram", r"ram is not key=value; did you mean model=ram\?"),
            ("--model=ram", r"--model=ram is not key=value; write model=ram"),
            ("--verbose", "--verbose is not key=value"),
            ("model", "model is not key=value; write model=NAME"),
            ("seed=1,2", "seed=1,2 names several values; add -m"),
            ("env=A,B", "names several values; add -m"),
            ("seed=${nope}", "set the value itself"),
            ("data.root=${oc.env:HOME}", "set the value itself"),
            ("seed=???", "set the value itself"),
            ("seed='1", "cannot be read"),
            ("hydra.verbose=true", r"hydra.verbose cannot be set; of Hydra's own settings only hydra\.run\.dir"),
            ("hydra/launcher=joblib", "hydra/launcher cannot be set"),
            ("trust=maybe", "trust must be true or false"),
            ("+trust=true", "trust must be true or false"),
            ("-cfg", "expected one argument|invalid choice|not key=value"),
        ],
    )
    def test_invalid_argument_is_refused_in_a_sentence(self, argument, complaint):
        with pytest.raises(ValueError, match=complaint):
            read_command_line(["model=ram", argument])

    def test_choice_given_as_a_flag_is_answered_with_key_value_form(self):
        with pytest.raises(ValueError, match=r"write model=ram$"):
            read_command_line(["--model", "ram"])

    def test_no_suggestion_without_a_similar_name(self):
        with pytest.raises(ValueError, match=r"there is no model 'xyz'; there are: [^?]*\.$"):
            read_command_line(["model=xyz"])

    @pytest.mark.parametrize(
        "sweep", ["range(1,10**9)", "range(1,1000000000)", "range(1,2,0)", "interval(0,1)", "choice()"]
    )
    def test_sweep_with_too_many_runs_is_refused(self, sweep):
        with pytest.raises(ValueError, match=r"must name at least one value and at most 1,000|cannot be read"):
            read_command_line(["-m", "model=ram", f"seed={sweep}"])

    def test_sweep_lists_its_values_and_the_command_line_of_each_run(self):
        request = read_command_line(["-m", "model=ram,dqn", "seed=range(1,4)", "model.lr=1e-3"])
        assert [setting.values for setting in request.settings] == [["ram", "dqn"], [1, 2, 3], [0.001]]
        assert (request.runs, request.sweep) == (6, True)
        runs = [(one.arguments(), swept) for one, swept in request.single_runs()]
        assert len(runs) == 6
        assert runs[3] == (["model=dqn", "seed=1", "model.lr=0.001"], {"model": "dqn", "seed": "1"})

    def test_sweep_over_an_argument_of_the_environment_names_it_as_it_was_typed(self):
        request = read_command_line(["-m", "env_kwargs.max_episode_steps=5,6"])
        assert [(one.arguments(), swept) for one, swept in request.single_runs()] == [
            ([f"++env_kwargs.max_episode_steps={n}"], {"env_kwargs.max_episode_steps": f"{n}"}) for n in (5, 6)
        ]

    @pytest.mark.parametrize("argument", ["env_kwargs=5", "env_kwargs=null", "env_kwargs.=5", "env_kwargs.a.b=5"])
    def test_arguments_of_the_environment_without_a_name_are_refused(self, argument):
        with pytest.raises(ValueError, match=r"set each argument by name, env_kwargs\.NAME=VALUE"):
            read_command_line([argument])

    @pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"])
    def test_empty_folder_is_refused(self, key):
        with pytest.raises(ValueError, match=f"{key} must not be empty; remove it or set a folder"):
            read_command_line([f"{key}="])

    def test_folder_of_a_single_run_is_refused_in_a_sweep(self):
        with pytest.raises(ValueError, match=r"in a sweep set hydra\.sweep\.dir, the folder of all runs"):
            read_command_line(["-m", "seed=1,2", "hydra.run.dir=x"])

    def test_last_of_two_values_wins(self):
        assert read_command_line(["seed=1", "seed=2"]).arguments() == ["seed=2"]

    @pytest.mark.parametrize("name", STRANGE)
    def test_path_reaches_hydra_verbatim(self, name):
        (argument,) = read_command_line([f"data.root=/x/{name}"]).arguments()
        assert OverridesParser.create().parse_override(argument).value() == f"/x/{name}"

    def test_quotes_of_a_path_are_removed_and_tilde_is_expanded(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/user")
        assert read_command_line(["data.root='a=b'"]).value("data.root") == "a=b"
        assert read_command_line(["data.root=~/pics"]).arguments() == ["data.root=/home/user/pics"]

    def test_trust_is_not_passed_to_hydra(self):
        request = read_command_line(["model=bbvi", "trust=true"])
        assert (request.trust, request.arguments()) == (True, ["model=bbvi"])
        assert not read_command_line(["model=bbvi", "trust=false"]).trust

    @pytest.mark.parametrize("arguments", [["model=ram", "--cfg", "job"], ["-sc", "install=bash"], ["experiment=null"]])
    def test_hydra_flags_are_passed_to_hydra(self, arguments):
        assert sorted(read_command_line(arguments).arguments()) == sorted(arguments)


class TestResume:
    def test_folder_without_a_run_cannot_be_resumed(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no run to resume: there is no config\.yaml in it"):
            read_command_line([f"resume={tmp_path}"])
        (tmp_path / "config.yaml").touch()
        assert read_command_line([f"resume={tmp_path}"]).value("resume") == str(tmp_path)

    def test_resume_null_resumes_nothing(self):
        request = read_command_line(["model=ram", "resume=null", "model.lr=1"])
        assert request.value("resume") is None
        assert request.value("model.lr") == 1

    def test_empty_resume_folder_is_reported(self):
        with pytest.raises(FileNotFoundError, match="the empty name holds no run to resume"):
            read_command_line(["resume="])

    @pytest.mark.parametrize("name", STRANGE)
    def test_folder_with_any_name_can_be_resumed(self, name, tmp_path):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").touch()
        assert read_command_line([f"resume={folder}"]).value("resume") == str(folder)

    def test_resume_allows_only_trust_and_length_beside_it(self, tmp_path):
        (tmp_path / "config.yaml").touch()
        request = read_command_line(
            [f"resume={tmp_path}", "trust=true", "trainer.max_epochs=9", "hydra.sweep.dir=x", "-m"]
        )
        assert request.trust
        assert not any("max_epochs" in argument for argument in request.arguments())  # the run's own has another
        for length in ("banana", "1.5", "null", "true"):
            with pytest.raises(ValueError, match=r"trainer\.max_epochs must be a whole number"):
                read_command_line([f"resume={tmp_path}", f"trainer.max_epochs={length}"])
        with pytest.raises(ValueError, match=r"with resume=RUN only .* can be set, to train longer; got model\.lr"):
            read_command_line(["model.lr=1", f"resume={tmp_path}"])
