"""A hook of mkdocs: the pages of the site that are made from files elsewhere, not copied.

The front page is the README. The reference is made from the source: one page per package, one
table of the names that it offers, and below it every module's docstrings.
"""

import ast
import functools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LIBRARY = ROOT / "advfeat"

PAGES = {
    "index.md": "README.md",
    "practicum.md": "experiments/practicum.md",
    "build_notes.md": "BUILD_NOTES.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""By page, the file that it shows."""

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LINK = re.compile(r'(\]\(|src=")(?![a-z]+:|#)([^)"#\s]+)')


def on_page_markdown(markdown: str, *, page: Any, **kwargs: Any) -> str:
    """Turns a link from a page in docs/ to a file of `PAGES` into one to its page."""
    if page.parent is None:  # alone under its tab: a list of one page says nothing
        page.meta.setdefault("hide", ["navigation"])
    source = page.file.abs_src_path
    if source is None:
        return markdown
    return _relinked(markdown, pathlib.Path(source).parent, pathlib.Path(source).parent)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that have no file of their own in docs/."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=_moved(source)))
    for page, content in _reference():
        files.append(File.generated(config, f"api/{page}.md", content=content))
    return files


def _moved(source: str) -> str:
    """A file's text, for a page at the root of the site."""
    text = _FRONT_MATTER.sub("", (ROOT / source).read_text(encoding="utf-8"))
    return _relinked(text, (ROOT / source).parent, DOCS)


def _relinked(text: str, here: pathlib.Path, there: pathlib.Path) -> str:
    """Relative links of a text that lies in one folder, as seen from another."""
    pages = {ROOT / source: DOCS / page for page, source in PAGES.items()}

    def target(found: re.Match[str]) -> str:
        path = (here / found[2]).resolve()
        return found[1] + os.path.relpath(pages.get(path, path), there)

    return _LINK.sub(target, text)


def _reference() -> Iterator[tuple[str, str]]:
    """Names and texts of the pages of the reference."""
    packages = sorted(path.parent for path in LIBRARY.glob("*/__init__.py"))
    modules = sorted(path for path in LIBRARY.glob("*.py") if path.stem != "__init__")
    yield (
        "index",
        "\n".join(
            [
                "# Reference",
                "What `import advfeat` offers, each name imported on its first use.\n",
                *_table("advfeat", _offered(_tree(LIBRARY / "__init__.pyi"))),
                "## Parts\n",
                "| part | what |",
                "|---|---|",
                *(
                    f"| [`advfeat.{p.name}`]({p.name}.md) | {_first_line(_tree(p))} |"
                    for p in packages
                ),
                *(
                    f"| [`advfeat.{m.stem}`](modules.md) | {_first_line(_tree(m))} |"
                    for m in modules
                ),
            ]
        ),
    )
    yield (
        "modules",
        _page(
            "Types, keys and checks",
            "Modules that every part of the library builds on.",
            [_identifier(path) for path in modules],
        ),
    )
    for package in packages:
        yield package.name, _package(package)
    experiments = sorted((ROOT / "experiments").glob("*/__main__.py"))
    yield (
        "experiments",
        _page(
            "Experiments",
            "Each runs as `python -m experiments.NAME` and lists its flags with `--help`.",
            [f"experiments.{path.parent.name}" for path in experiments],
        ),
    )


def _page(title: str, about: str, identifiers: list[str]) -> str:
    return "\n\n".join([f"# {title}", about, *(f"::: {name}" for name in identifiers)])


def _package(folder: pathlib.Path) -> str:
    """A package's own text, its names, then module after module."""
    tree, name = _tree(folder), _identifier(folder)
    modules = sorted(
        path
        for path in folder.rglob("*.py")
        if path != folder / "__init__.py" and ast.get_docstring(_tree(path))
    )
    table = _table(name, [member for member in _offered(tree) if member not in _own(folder)])
    return "\n".join(
        [
            f"::: {name}",
            f"    options: {{heading_level: 1, members: {_own(folder)}}}",
            *(["## Names\n", *table] if table else []),
            *map(_module, modules),
        ]
    )


def _module(path: pathlib.Path) -> str:
    """A module's docstrings; of a package within a package, what it defines itself."""
    text = f"\n::: {_identifier(path)}"
    if path.name != "__init__.py":
        return text
    return f"{text}\n    options: {{members: {_own(path.parent)}}}"


def _own(folder: pathlib.Path) -> list[str]:
    """What a package offers and defines itself."""
    name = _identifier(folder)
    offered = _offered(_tree(folder))
    return [member for member in offered if _defined(name, member) == (name, member)]


def _table(package: str, members: list[str]) -> list[str]:
    """What a package offers, each name with the first line of its docstring and a link to it."""
    rows = []
    for member in members:
        module, name = _defined(package, member)
        target = module if name is None else f"{module}.{name}"
        rows.append(f"| [`{member}`][{target}] | {_first_line(_tree(_path(module)), name)} |")
    return ["| name | what |", "|---|---|", *rows, ""] if rows else []


def _offered(tree: ast.Module) -> list[str]:
    """`__all__`, where it is written down."""
    found = _assigned(tree, "__all__")
    return sorted(ast.literal_eval(found), key=str.lower) if found is not None else []


def _assigned(tree: ast.Module, name: str) -> Any:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return node.value
    return None


def _defined(package: str, member: str) -> tuple[str, str | None]:
    """The module and the name behind what a package offers; a module has no name in it."""
    for node in _tree(_path(package)).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == member:
                    inner = ".".join(filter(None, [package if node.level else "", node.module]))
                    if inner == package:
                        return f"{package}.{member}", None
                    return _defined(inner, alias.name)
    return package, member


def _path(identifier: str) -> pathlib.Path:
    path = ROOT.joinpath(*identifier.split("."))
    if path == LIBRARY:
        return path / "__init__.pyi"
    return path if path.is_dir() else path.with_suffix(".py")


def _identifier(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def _tree(path: pathlib.Path) -> ast.Module:
    file = path / "__init__.py" if path.is_dir() else path
    return ast.parse(file.read_text(encoding="utf-8"))


def _first_line(tree: ast.Module, member: str | None = None) -> str:
    """Of a module's docstring, or of one of its members'."""
    text = ast.get_docstring(tree) if member is None else _documented(tree, member)
    line = (text or "").split("\n\n")[0].replace("\n", " ")
    # A bar would begin the table's next cell, but not within code.
    return re.sub(r"`[^`]*`|\|", lambda found: found[0] if found[0] != "|" else r"\|", line)


def _documented(tree: ast.Module, member: str) -> str | None:
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == member:
            return ast.get_docstring(node)
        assigned = isinstance(node, ast.Assign | ast.AnnAssign)
        if assigned and _assigned(ast.Module([node], []), member) is not None:
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return str(after.value.value)
            return None
    return None
