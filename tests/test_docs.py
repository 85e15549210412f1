"""Every name and command line that docs, docstrings and messages mention is one that exists."""

from __future__ import annotations

import ast
import json
import re
import shlex
import typing
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import typer

import tsprune
from tsprune import cli

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# the pages of the site; those that are not files are made by scripts/docs_hooks.py
NAVIGATION = re.findall(r"\S+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
NAME = re.compile(r"(?<![\w./-])tsprune((?:\.[A-Za-z_]\w*)+)")
# entry point groups, a file of checkpoints, and what is no name of this package
OTHERS = {"tsprune.families", "tsprune.metrics", "tsprune.json"}


def resolved(name: str) -> object:
    """What `name` stands for after `import tsprune`, modules imported as needed."""
    found: object = tsprune
    for place, part in enumerate(name.split(".")[1:], 2):
        if isinstance(found, ModuleType) and not hasattr(found, part):
            import_module(".".join(name.split(".")[:place]))
        found = getattr(found, part)
    return found


def names(path: Path) -> set[str]:
    """Names of this package that a page, or the strings of a module, mention."""
    texts = [path.read_text(encoding="utf-8")]
    if path.suffix == ".py":
        tree = ast.parse(texts[0])
        texts = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return {f"tsprune{found}" for text in texts for found in NAME.findall(text)} - OTHERS


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted(SOURCE.rglob("*.py"))], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_name_imports_as_written(path: Path) -> None:
    for name in sorted(names(path)):
        assert resolved(name) is not None, name


def written(path: Path) -> str:
    """The Markdown of a page or notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", written(path), re.M | re.S)


@cache
def parameters(command: str) -> list[typing.Any]:
    group = typer.main.get_command(cli.app)
    return list(typing.cast(typing.Any, group).commands[command].params)


@cache
def options(command: str) -> set[str]:
    found = parameters(command)
    return {"--help", *(flag for one in found for flag in (*one.opts, *one.secondary_opts))}


def lines(path: Path, *, spans: bool = True) -> list[list[str]]:
    """Words of every command line of a page's shell blocks and code spans."""
    found = [line for block in blocks(path, "sh") for line in block.splitlines()]
    found += re.findall(r"`(tsprune [a-z][^`]*)`", written(path)) if spans else []
    split = [shlex.split(line, comments=True) for line in found if "|" not in line and "..." not in line]
    return [words for words in split if words[:1] == ["tsprune"] and len(words) > 1]


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_line_has_options_that_exist(path: Path) -> None:
    commands = {str(command.name) for command in cli.app.registered_commands}
    for _, command, *words in lines(path):
        if command.startswith("--"):
            continue
        assert command in commands, (path.name, command)
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options(command), (path.name, command, word)


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_line_has_what_its_command_requires(path: Path) -> None:
    for _, command, *words in lines(path, spans=False):
        for one in parameters(command):
            if one.required and one.param_type_name == "option":
                assert {*one.opts} & {*words}, (path.name, command, one.opts)


def test_the_readers_find_what_there_is() -> None:
    page = ROOT / "docs" / "guides" / "prune.md"
    assert {"tsprune.prune", "tsprune.pruning.compare"} <= names(page)
    assert len(lines(page)) >= 6
    with pytest.raises((AttributeError, ImportError)):
        resolved("tsprune.pruning.nonsense")


def test_python_blocks_are_python_and_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in PAGES:
        for block in blocks(path, "python"):
            ast.parse(block)
    (block,) = blocks(ROOT / "README.md", "python")
    exec(compile(block.replace('"us_*/M/short"', '"us_employment/M/short"'), "README.md", "exec"), {})


def test_the_readme_works_on_a_package_index() -> None:
    """There are no files beside it there: no links to pages, and one picture, whose words stand for it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"(!?)\[([^\]]*)\]\(([^)]+)\)", text.replace("\n", " "))
    assert not [mark for mark, _, _ in found if mark]
    (picture,) = re.findall(r'<img [^>]*alt="([^"]+)"', text)
    assert len(picture.split()) > 10
    assert all((ROOT / name).exists() for name in re.findall(r'(?:src|srcset)="([^"]+)"', text))
    targets = [target for _, _, target in found]
    assert targets
    assert all(target.startswith("https://") for target in targets), targets


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """Files and pages are there (`make docs` checks anchors). Addresses elsewhere have a sound form."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8").replace("\n", " ")):
        if ":" in target:
            assert re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/[\w./~-]*)?", target), target
            continue
        place = (path.parent / target).resolve()
        made = [ROOT / "docs" / name for name in NAVIGATION]
        assert place.exists() or place in made, target


def test_every_page_is_in_the_navigation() -> None:
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES[1:]}
    assert pages <= {*NAVIGATION}
    assert len(NAVIGATION) == len({*NAVIGATION})


def test_the_glossary_is_short() -> None:
    entries = re.findall(r"^\| \*\*", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    assert 15 <= len(entries) < 25


def test_the_changelog_and_the_citation_know_the_version() -> None:
    assert f"## [{tsprune.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {tsprune.__version__}\n" in (ROOT / "CITATION.cff").read_text()
