"""Numbers and figures of docs/findings, from the table: `python -m pretrain.laboratory results`.

A page is prose by hand around blocks `<!-- NAME: begin -->` to `<!-- NAME: end -->`, which this module fills.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from pretrain.laboratory import answers, figures, verdicts
from pretrain.laboratory.plan import CONDITIONS, SEEDS
from pretrain.laboratory.seeds import shown_p, with_limits
from tsprune.atomic import write_whole
from tsprune.errors import TspruneError

FOLDER = Path(__file__).parents[2] / "docs" / "findings"
_BLOCK = re.compile(r"(<!-- ([\w-]+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def blocks(rows: pd.DataFrame) -> dict[str, str]:
    """Markdown by name of a block.

    rows : `results.published()`, which is `tsprune.data.laboratory()`
    """
    runs = answers.of_runs(rows)
    judged = verdicts.tables(rows, runs)
    return {
        "runs": _state(runs),
        "architecture": _table(answers.architecture(runs)),
        "data": _table(answers.data(runs)),
        "dose": _table(answers.dose(runs)),
        "separation": _table(answers.separation(rows)),
        "depth": _table(answers.depth(runs)),
        "paper-depth": f"{answers.paper_depth(runs)}\n",
        **{f"{name}-verdicts": _table(table) for name, table in judged.items()},
        **{f"{name}-answer": f"{verdicts.answer(table)}\n" for name, table in judged.items()},
        "regression": _regression(runs, "area"),
        "regression-share": _regression(runs, "share"),
    }


def _regression(runs: pd.DataFrame, index: str) -> str:
    coefficients, checks = answers.regression(runs, index)
    alike, _ = answers.regression(runs, index, accuracy=True)
    table = _coefficients(alike).add_suffix(", at equal accuracy")
    table = _coefficients(coefficients).reindex(table.index).join(table).fillna("")
    return _table(table) + "".join(f"\n- {line}" for line in checks) + "\n"


def _coefficients(fitted: pd.DataFrame) -> pd.DataFrame:
    shown = {
        term: {"coefficient": with_limits(row.coefficient, row.low, row.high), "p": shown_p(row.p)}
        for term, row in fitted.iterrows()
    }
    return pd.DataFrame.from_dict(shown, orient="index").rename_axis("term")


def _state(runs: pd.DataFrame) -> str:
    """How much of the plan is finished, and so how sure an answer can be."""
    seeds = runs.groupby("condition")["seed"].nunique()
    whole, more = (int((seeds >= len(SEEDS) + extra).sum()) for extra in (0, 1))
    measured = f"{len(seeds)} of {len(CONDITIONS)} conditions are measured"
    lines = [f"{measured}, {whole} of them with {len(SEEDS)} seeds or more."]
    if whole < len(CONDITIONS):
        lines.append("Comparisons of the others are undecided.")
    if more:
        lines.append(
            f"{more} conditions got further seeds after {len(SEEDS)} had left a large difference undecided, "
            "which makes p-values of their comparisons a little too small."
        )
    return "\n".join(lines) + "\n"


def _table(frame: pd.DataFrame) -> str:
    """A Markdown table with the index as first column."""
    if frame.empty:
        return "Not measured yet.\n"
    head = [frame.index.name or "", *frame.columns]
    lines = [
        head,
        ["---"] * len(head),
        *([index, *row] for index, row in zip(frame.index, frame.to_numpy(), strict=True)),
    ]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def filled(page: str, found: dict[str, str]) -> str:
    """The page with its blocks written again.

    Raises TspruneError for a block that nothing fills.
    """

    def written(match: re.Match[str]) -> str:
        if match[2] not in found:
            raise TspruneError(f"no block {match[2]!r}; choose from {', '.join(found)}")
        return f"{match[1]}{found[match[2]]}{match[3]}"

    return _BLOCK.sub(written, page)


def write(rows: pd.DataFrame, folder: Path = FOLDER) -> list[Path]:
    """Fills the pages of `folder` and draws their figures; the paths that were written.

    rows : as in `blocks`

    Raises TspruneError where a package of the group `laboratory` is missing.
    """
    for package in ("statsmodels", "matplotlib"):
        if find_spec(package) is None:
            raise TspruneError(f"the pages need {package}; install it with: pip install --group laboratory")
    found = blocks(rows)
    pages = sorted(folder.glob("*.md"))
    for page in pages:
        write_whole(page, filled(page.read_text(), found).encode())
    return [*pages, *figures.write_all(rows, answers.of_runs(rows), folder)]
