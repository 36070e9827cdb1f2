"""Write ``docs/api.md``, which lists every public name: ``python docs/make_api.py``."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import NamedTuple

import zoo

PAGE = Path(__file__).with_name("api.md")
ROOT = PAGE.parents[1]
HEAD = """# API

Every public name, in the outermost package that exports it; other names are internal. Written by
`docs/make_api.py` from the docstrings, which contain equations, shapes, errors and an example of each.
"""


class PublicName(NamedTuple):
    """A name that a package exports."""

    package: str
    name: str
    value: object
    path: Path
    """File that defines it."""
    doc: str


def public_packages() -> Iterator[ModuleType]:
    """Yield the packages that are not internal."""
    for found in walk_packages(zoo.__path__, "zoo."):
        if found.ispkg and "._" not in found.name:
            yield import_module(found.name)


def public_names(package: ModuleType) -> Iterator[PublicName]:
    """Yield the names that a package exports."""
    for name in getattr(package, "__all__", ()):
        value, path = getattr(package, name), _defining_file(package, name)
        is_documented = inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)
        doc = inspect.getdoc(value) if is_documented else _constant_doc(path, name)
        yield PublicName(package.__name__, name, value, path, doc or "")


def _defining_file(package: ModuleType, name: str) -> Path:
    """Return the file that defines an exported name, found through the imports of ``__init__.py`` files."""
    path = Path(str(package.__file__))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and any((each.asname or each.name) == name for each in node.names):
            return _defining_file(import_module(str(node.module)), name)
    return path


def _constant_doc(path: Path, name: str) -> str:
    """Return the string or comment after a constant, or the comment before it."""
    lines = path.read_text().splitlines()
    body = ast.parse("\n".join(lines)).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(name in {each.id for each in ast.walk(x) if isinstance(each, ast.Name)} for x in targets if x):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return str(after.value.value)
            comments = [lines[node.lineno - 2], *lines[node.lineno - 1 : node.end_lineno]]
            return next((line.partition("# ")[2] for line in comments if "# " in line), "")
    return ""


def summary(doc: str) -> str:
    """Return the first sentence of a docstring."""
    paragraph = " ".join(doc.partition("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")
    return re.split(r"(?<=[^.]\.) (?=[A-Z`])", paragraph)[0]


def page() -> str:
    """Return the content of ``docs/api.md``: each name once, in the outermost package that exports it."""
    sections: list[str] = [HEAD]
    listed: set[tuple[Path, str]] = set()
    for package in public_packages():
        if names := [x for x in public_names(package) if (x.path, x.name) not in listed]:
            rows = [f"| [`{x.name}`](../{x.path.relative_to(ROOT)}) | {summary(x.doc)} |" for x in names]
            sections.append("\n".join([f"## {package.__name__}\n", "| name | |", "| --- | --- |", *rows, ""]))
            listed |= {(x.path, x.name) for x in names}
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
