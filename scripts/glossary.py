"""Writes docs/glossary.md from src/tsprune/glossary.toml, the home of the words.

python scripts/glossary.py           print it
python scripts/glossary.py --write   replace docs/glossary.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tsprune.glossary import glossary

PAGE = Path(__file__).resolve().parent.parent / "docs" / "glossary.md"
HEADING = """# Glossary

Words of `tsprune`, for readers who know transformers and GIFT-Eval. All other words are used as there.

| word | meaning |
|---|---|
"""


def page() -> str:
    """The page as Markdown."""
    return HEADING + "".join(f"| {term.title} | {term.meaning} |\n" for term in glossary().values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
