"""The public line: what packages export is documented with an example and listed; all else bears an underscore."""

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load_make_api():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_api = load_make_api()
PACKAGES = {package.__name__: package for package in make_api.public_packages()}
NAMES = {f"{package}.{x.name}": x for package in PACKAGES for x in make_api.public_names(PACKAGES[package])}


@pytest.mark.parametrize("name", NAMES)
def test_public_name_has_docstring_and_example(name):
    found = NAMES[name]
    assert found.doc
    if inspect.isclass(found.value) or inspect.isfunction(found.value):  # the examples themselves run as doctests
        assert ">>> " in found.doc


def test_api_page_lists_every_public_name():
    assert make_api.PAGE.read_text(encoding="utf-8") == make_api.page(), "run: python docs/make_api.py"


def exported_above(path: Path) -> set[str]:
    """Names that the package of a module, or one above it, exports."""
    packages = (".".join(parent.relative_to(ROOT).parts) for parent in path.parents if parent.is_relative_to(ROOT))
    return {name for package in packages for name in getattr(PACKAGES.get(package), "__all__", ())}


def unmarked_names(path: Path) -> list[str]:
    """Functions and classes of a module that are neither exported nor private."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if not name.startswith("_") and name not in exported_above(path)]


def test_functions_and_classes_are_exported_or_private():
    modules = [path.relative_to(ROOT) for path in sorted((ROOT / "zoo").rglob("*.py")) if path.name != "__init__.py"]
    public = [path for path in modules if not any(part.startswith("_") for part in path.parts)]
    unmarked = {str(path): names for path in public if (names := unmarked_names(ROOT / path))}
    assert not unmarked


def test_name_without_underscore_that_is_not_exported_is_detected(tmp_path):
    (tmp_path / "module.py").write_text("def helper(): ...\ndef _internal(): ...\nclass Helper: ...\n")
    assert unmarked_names(tmp_path / "module.py") == ["helper", "Helper"]
