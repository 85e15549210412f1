"""Pages of the documentation that are made from the source have all that there is, and nothing else."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer

from tsprune import cli
from tsprune.models import FAMILIES, bundled_names

ROOT = Path(__file__).resolve().parents[1]


def generator(name: str) -> ModuleType:
    """A module of scripts/pages."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT / "scripts"))
        return importlib.import_module(f"pages.{name}")


def test_every_command_and_option_is_described() -> None:
    text = generator("commands").page()
    described, *sections = re.split(r"^## tsprune ", text, flags=re.M)
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert [section.split("\n")[0] for section in sections] == list(commands)
    for section, command in zip(sections, commands.values(), strict=True):
        for one in command.params:
            for flag in (*one.opts, *one.secondary_opts) if one.param_type_name == "option" else ():
                assert f"`{flag}`" in section, (command.name, flag)
    for line in described.splitlines():
        if line.startswith("| `"):
            _, names, about, _ = re.split(r"(?<!\\)\|", line)
            assert len(about.split()) > 2, names
    assert re.search(r"^\| `--max-loss` \*SHARE\* \| .*\. Default: `0\.01`\. \|$", text, re.M)
    assert "[bold]" not in text


def test_every_family_and_checkpoint_is_in_the_table() -> None:
    text = generator("models").page()
    for family in FAMILIES.values():
        assert f"| {family.title} | {family.architecture} | {', '.join(family.attention)} |" in text
        for one in family.released:
            assert f"| `{one.id}` | {family.title} | {one.size} | {one.licence} |" in text
    for name in bundled_names():
        assert text.count(f"`bundled:{name}`") == 1
    assert text.count("✓") == sum(
        f.multivariate + f.past_covariates + bool(f.graph) for f in FAMILIES.values()
    )


def test_every_family_is_in_the_table_of_pipelines() -> None:
    guide = (ROOT / "docs" / "guides" / "prune.md").read_text(encoding="utf-8")
    named = " ".join(re.findall(r"^\| ([^|`]+) \| `", guide, re.M))
    assert not [family.title for family in FAMILIES.values() if family.title not in named]


def test_every_explained_message_is_raised_somewhere() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    explained = re.findall(r"^### `(.*)`$", page, re.M)
    listed = re.findall(r"^- `(.*)`$", generator("messages").page(), re.M)
    assert len(explained) >= 30
    assert not {*explained} - {*listed}
    assert len(listed) > 300


def test_messages_are_read_from_the_source() -> None:
    messages = generator("messages")
    one = "raise TspruneError(f'{name}: no {what!r} ' + 'in it')\nraise TspruneError(text)"
    path = ROOT / "src" / "tsprune" / "extras.py"
    assert list(messages.raised(path)) == []
    raised = [node.exc for node in ast.parse(one).body if isinstance(node, ast.Raise)]
    found = {messages.template(node.args[0]) for node in raised if isinstance(node, ast.Call)}
    assert found == {"…: no … in it", "…"}


def test_findings_have_every_claim_and_layer() -> None:
    text = generator("findings").page()
    assert text.count("Sharp heads carry parroting.") == 3  # once a model
    assert text.count("| `stack.") == 2 * 8 + 2 * 32  # layers, and their one sublayer each
    assert text.count("| `encoder.") == 2 * 6
    assert text.count("| `decoder.") == 6 + 2 * 6
    assert "nan" not in text


def test_notebooks_become_pages_with_their_outputs() -> None:
    notebooks = generator("notebooks")
    text = notebooks.page(ROOT / "examples" / "heads.ipynb")
    assert text.startswith("# What each head does")
    assert "equal to the last bit: True" in text
    assert text.count('class="figure"') == text.count('type="application/json"') > 0
    assert "<style" not in text
    assert "width 128&#10;  stack (causal)&#10;" in text  # lines of an anatomy
    assert "https://" not in text
