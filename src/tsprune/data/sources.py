"""Data by name: the suites of this package and those of installed plug-ins, or a copy of GIFT-Eval."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tsprune.arguments import shown
from tsprune.data.chaos import chaos
from tsprune.data.gift_eval import gift_eval
from tsprune.data.pocket import pocket
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.files import status, user_path
from tsprune.plugins import Registry


@dataclasses.dataclass(frozen=True)
class DataSource:
    """A suite with a name, by which `--data` and `open_suite` find it.

    load : returns the suite
    about : its content, in a line

    Packages add data sources by the entry point group `tsprune.data`.
    """

    name: str
    load: Callable[[], Suite]
    about: str = ""


SOURCES: Registry[DataSource] = Registry(
    "tsprune.data",
    DataSource,
    (
        DataSource("pocket", pocket, "real series of 15 datasets, hourly to yearly, embedded in the package"),
        DataSource("chaos", chaos, "trajectories of chaotic systems, embedded in the package"),
    ),
    noun="data source",
)


def is_source(data: str) -> bool:
    """Whether `data` is a name in `SOURCES`; TspruneError if it is not a directory either."""
    if data in SOURCES:
        return True
    if status(user_path(data)) is None:
        raise TspruneError(
            f"no data source and no directory {user_path(data)}; sources: {', '.join(SOURCES)}; "
            "or pass the directory of a copy of GIFT-Eval"
        )
    return False


def open_suite(data: str, configs: Sequence[str] | None = None) -> Suite:
    """The suite of a data source, or of a copy of GIFT-Eval.

    data : a name in `SOURCES`, or the directory of the copy
    configs : names or glob patterns of configurations; None takes all

    Raises TspruneError if `data` is neither, or if a pattern matches no configuration.
    """
    if not is_source(data):
        return gift_eval(data, configs)
    suite = SOURCES[data].load()
    if not isinstance(suite, Suite):
        raise TspruneError(f"the data source {data} returned {shown(suite)} instead of a Suite")
    return suite.only(configs) if configs else suite
