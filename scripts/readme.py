"""The account of `make study` in the README and on the page of findings, from its files in docs/study.

    python scripts/readme.py           print the README's sentences
    python scripts/readme.py --write   put them between the marks in README.md

Copy study/results.parquet and study/manifest.json of a new `make study` to docs/study first. A test holds
the README against what this prints.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
RESULTS, MANIFEST = ROOT / "docs" / "study" / "results.parquet", ROOT / "docs" / "study" / "manifest.json"
BEGIN, END = "<!-- study: begin (scripts/readme.py) -->", "<!-- study: end -->"
PERCENT = 30
ARCHITECTURES = {
    "bundled:timesfm": "decoder-only, 8 layers",
    "bundled:chronos-bolt": "encoder-decoder, 6 + 6 layers",
    "bundled:timesfm-deep": "decoder-only, 32 narrow layers",
}
# start of a claim's statement -> what the README calls it
CLAIMS = {
    "Middle layers tolerate": "28 % of all heads and 2 MLPs can go for less than 6 % MASE",
    "First and last layers": "first and last layers cost more than 25 % MASE each",
    "Stable-rank pruning costs": "30 % of the middle heads cost less than 6 % MASE by stable rank and more "
    "than 20 % at random",
    "Stable-rank pruning (highest": "stable-rank pruning beats random pruning",
    "At 30 %": "heads of high stable rank can go, those of low stable rank cannot",
    "Low stable rank": "low stable rank predicts sharp attention",
    "Sharp heads carry parroting": "sharp heads carry parroting",
    "Sharp heads carry seasonality": "sharp heads carry seasonality",
    "Diffuse heads": "diffuse heads can go",
}


def change(value: float, low: float, high: float) -> str:
    """`+16.3 % (+1 to +79)`."""
    return f"{100 * value:+.1f} % ({100 * low:+.0f} to {100 * high:+.0f})"


class Results:
    """The rows of one model."""

    def __init__(self, table: pd.DataFrame, manifest: dict, model: str) -> None:
        self.model, self._manifest = model, manifest
        self._table = table[table["model"] == model]

    def scores(self) -> str:
        ratios = self._manifest["scores"][self.model]
        return f"{ratios['MASE_ratio'][0]:.3f} / {ratios['CRPS_ratio'][0]:.3f}"

    def pruned(self, strategy: str) -> str:
        """CRPS after `PERCENT` of the middle layers' heads went by a strategy."""
        rows = self._rows("pruning", strategy=strategy, percent=PERCENT)
        return change(*rows[["crps_change", "crps_low", "crps_high"]].iloc[0])

    def random(self) -> str:
        """The same, geometric mean over random draws."""
        rows = self._rows("comparisons", versus="unpruned", percent=PERCENT, metric="CRPS")
        return change(*rows[["difference", "low", "high"]].iloc[0])

    def mlp(self) -> str:
        rows = self._rows("mlps", stack="all")
        return change(*rows[["mase_change", "mase_low", "mase_high"]].iloc[0])

    def tally(self) -> str:
        verdicts = self._rows("claims")["verdict"].tolist()
        return ", ".join(str(verdicts.count(one)) for one in ("confirmed", "refuted", "undecided"))

    def verdicts(self) -> dict[str, str]:
        """Statement -> verdict."""
        rows = self._rows("claims")
        return dict(zip(rows["statement"], rows["verdict"], strict=True))

    def _rows(self, experiment: str, **wanted: object) -> pd.DataFrame:
        rows = self._table[self._table["experiment"] == experiment]
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
        return rows


def of_models(table: pd.DataFrame, manifest: dict) -> list[Results]:
    """The results of each model, in the order of the study."""
    return [Results(table, manifest, name) for name in manifest["arguments"]["models"]]


def brief(table: pd.DataFrame, manifest: dict) -> str:
    """The README's part: the sentences alone."""
    return "\n".join(sentences(table, of_models(table, manifest))) + "\n"


def account(table: pd.DataFrame, manifest: dict) -> str:
    """The table and the sentences."""
    models = of_models(table, manifest)
    heads = [f"`{one.model}` ({ARCHITECTURES.get(one.model, 'model')})" for one in models]
    draws = int(table.loc[table["experiment"] == "comparisons", "draws"].max())
    rows = {
        "MASE / CRPS relative to Seasonal Naive": [one.scores() for one in models],
        f"{PERCENT} % of the middle layers' heads removed, highest stable rank first: CRPS": [
            one.pruned("high-to-low") for one in models
        ],
        f"as many at random, geometric mean of {draws} draws: CRPS": [one.random() for one in models],
        "as many, lowest stable rank first: CRPS": [one.pruned("low-to-high") for one in models],
        "one MLP removed, median: MASE": [one.mlp() for one in models],
        "claims of the paper: confirmed, refuted, undecided": [one.tally() for one in models],
    }
    lines = [f"| measured | {' | '.join(heads)} |", f"|---|{'---:|' * len(models)}"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([*lines, "", *sentences(table, models)]) + "\n"


def sentences(table: pd.DataFrame, models: list[Results]) -> list[str]:
    """One sentence a model, of the claims that were decided, and one of all models together."""
    found = []
    for one in models:
        parts = []
        for verdict in ("confirmed", "refuted"):
            names = [name_of(text) for text, decided in one.verdicts().items() if decided == verdict]
            if names:
                parts.append(f"{verdict.capitalize()}: {'; '.join(names)}")
        found.append(f"- `{one.model}`. {'. '.join(parts) or 'No claim is decided'}.")
    together = table[(table["experiment"] == "claims") & (table["model"] == "all")]
    found += [
        f"- All models. {row.verdict.capitalize()}: {lowered(row.statement)}" for row in together.itertuples()
    ]
    return found


def name_of(statement: str) -> str:
    """What the README calls a claim."""
    return next(name for start, name in CLAIMS.items() if statement.startswith(start))


def lowered(text: str) -> str:
    return text[0].lower() + text[1:]


def with_account(readme: str, text: str) -> str:
    """The README with its account replaced."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{text}{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    text = brief(pd.read_parquet(RESULTS), json.loads(MANIFEST.read_text()))
    if given.write:
        path = ROOT / "README.md"
        path.write_text(with_account(path.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
