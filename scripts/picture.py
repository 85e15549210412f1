"""The README's picture, light and dark: what each layer of a deep model is worth, and what to deploy.

    python scripts/picture.py --layers RESULTS --model NAME --frontier FOLDER [--batch 1] [--out FILE.svg]

RESULTS is results.parquet of a study of the model, or a CSV of `tsprune.sweep(model, kind="layer")`. FOLDER
is that of `tsprune frontier`. Writes the file and, for dark pages, the same with -dark in its name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from tsprune.report.picture import PictureRow, deployed_of_frontier, write_rows

ROOT = Path(__file__).resolve().parent.parent


def layers_of(path: Path, model: str) -> pd.DataFrame:
    """The whole layers that were ablated: columns stack, layer, mase_change, mase_low, mase_high."""
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        chosen = (table["model"] == model) & (table["experiment"] == "layers") & (table["unit"] == "both")
        return table[chosen]
    table = pd.read_csv(path)
    names = table["address"].str.extract(r"^(?P<stack>\w+)\.(?P<layer>\d+)$")
    return table.assign(stack=names["stack"], layer=names["layer"].astype(int))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--frontier", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "picture.svg")
    given = parser.parse_args()
    deployed = deployed_of_frontier(pd.read_csv(given.frontier / "frontier.csv"), given.batch)
    row = PictureRow(given.model, layers_of(given.layers, given.model), deployed, "measured")
    write_rows([row], given.out)
    write_rows([row], given.out.with_stem(f"{given.out.stem}-dark"), dark=True)


if __name__ == "__main__":
    main()
