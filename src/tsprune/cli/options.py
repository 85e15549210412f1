"""Options that several commands take: each is defined once, and means the same everywhere.

Nothing here imports torch or pandas before the arguments, and the paths in them, are checked.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsprune.anatomy import KINDS
from tsprune.arguments import COUNT as COUNT
from tsprune.arguments import SEED
from tsprune.choices import AUTO, DTYPES, RANKED_METRICS, TORCH_EXPORT
from tsprune.cli.output import err, note, print_failed, print_json, print_skipped
from tsprune.errors import TspruneError, one_line
from tsprune.files import user_path
from tsprune.progress import display
from tsprune.run_options import BATCH_SIZE, MEMORY, Options

if TYPE_CHECKING:
    from tsprune.data.own.own_options import DataOptions
    from tsprune.data.suite import Suite
    from tsprune.deployment import Exported
    from tsprune.models.forecaster import Forecaster

# Bounds are those of what computes with the numbers, or beyond any use of them. NaN passes every comparison
# of a range, so options with fractions have `finite` as well; tests/cli/test_numbers.py tries them all.
GIB = 2**30

# scores by the components they are of, which tests compare with what the package has
SCORES_OF_HEADS: tuple[str, ...] = (
    "stable_rank", "stable_rank_effective", "entropic_rank", "query_key_spectral_norm",
    "query_key_frobenius_norm", "value_output_spectral_norm", "value_output_frobenius_norm",
    "attention_entropy", "attention_sharpness", "attention_stable_rank", "attention_entropic_rank",
)  # fmt: skip
SCORES_OF_OTHERS: tuple[str, ...] = ("block_influence",)  # MLPs, attention sublayers and layers
SCORES_OF_ALL = (
    "weight_magnitude", "output_norm", "first_order", "screening", "mase_change", "crps_change",
    "spearman_distance",
)  # fmt: skip

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|hpu|mtia|ipu|xla|meta)(:\d{1,4})?")


def finite(value: float | None) -> float | None:
    """The callback of options that take a fraction: refuses NaN, which no range does."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def share(text: str | float) -> float:
    """A share written as 1% or 0.01; a bad parameter if it is neither, is below 0 or has no use."""
    words = str(text).strip()
    try:
        value = float(words.removesuffix("%")) / (100 if words.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= COUNT:
        raise typer.BadParameter(f"invalid share {one_line(words, 40)!r}; write 1% or 0.01.")
    return value


def duration(text: str | float) -> float:
    """Seconds of a time written as 90s, 30m, 2h or 1h30m; a bad parameter if it is none."""
    words = str(text).strip().lower()
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", words)
    parts = [float(part or 0) for part in found.groups()] if found and words else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not 0 < seconds <= 1e8:
        raise typer.BadParameter(f"invalid time {one_line(words, 40)!r}; write 90s, 30m or 2h.")
    return seconds


def option(text: str, *flags: str, **how: Any) -> Any:
    """An option with `text` as its help."""
    return typer.Option(*flags, help=text, **how)


def integer(text: str, *, least: int = 1, most: int = COUNT, **how: Any) -> Any:
    """An option that takes a whole number."""
    return option(text, min=least, max=most, **how)


def own_option(text: str, *names: str, **how: Any) -> Any:
    """An option that only a user's own data take."""
    return option(text, *names, rich_help_panel="Your own data (--data FILE)", show_default=False, **how)


def decimal(text: str, *, least: float = 0, most: float = COUNT, **how: Any) -> Any:
    """An option that takes a finite number."""
    return option(text, min=least, max=most, callback=finite, **how)


def portion(text: str) -> Any:
    """An option that takes a `share`."""
    return option(text, parser=share, metavar="SHARE")


def choice(names: Sequence[str], *flags: str, text: str, group: str | None = None) -> Any:
    """An option that takes one of `names`, or several if it is a list.

    group : entry points by which other packages add names; where there are some, the API decides
    """

    def check(value: Any) -> Any:
        given = [] if value is None else [value] if isinstance(value, str) else value
        unknown = [name for name in given if name not in names]
        if unknown and not (group and entry_points(group=group)):
            raise typer.BadParameter(f"{one_line(unknown[0], 40)!r} is not one of: {', '.join(names)}.")
        return value

    metavar = "|".join(names) if len(names) < 6 else "NAME"
    return option(text, *flags, callback=check, metavar=metavar)


def _device(value: str | None) -> str | None:
    """The callback of --device: refuses unknown device names, unless a package adds devices to torch."""
    if value is not None and not _DEVICE.fullmatch(value) and not entry_points(group="torch.backends"):
        raise typer.BadParameter(
            f"no device is called {one_line(value, 40)!r}; write cpu, cuda or cuda:1, or leave it out."
        )
    return value


def require_score(name: str, kind: str) -> None:
    """TspruneError if components of this kind have no such score; scores of other packages pass."""
    ours = kind == "head"
    have, lack = (SCORES_OF_HEADS, SCORES_OF_OTHERS) if ours else (SCORES_OF_OTHERS, SCORES_OF_HEADS)
    if name in lack:
        known = ", ".join((*have, *SCORES_OF_ALL))
        raise TspruneError(f"a component of kind {kind} has no score {name}; choose --by from: {known}")


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="bundled:NAME, a directory with a checkpoint in the upstream format, or a hub id such as "
        "amazon/chronos-bolt-small.",
    ),
]
KindOption = Annotated[str, choice(KINDS, text="Kind of component.")]
MetricOption = Annotated[
    str,
    choice(RANKED_METRICS, text="Metric that decides, relative to Seasonal Naive.", group="tsprune.metrics"),
]
ByOption = Annotated[
    str,
    choice(
        (*SCORES_OF_HEADS, *SCORES_OF_ALL, *SCORES_OF_OTHERS),
        text="Score that orders the components, e.g. stable_rank, attention_entropy, output_norm or "
        "mase_change; [bold]tsprune rank --list[/] describes all of them.",
        group="tsprune.scores",
    ),
]
MaxLossOption = Annotated[float, portion("Largest relative loss of the metric, as 1% or 0.01.")]
SaveDtype = Annotated[
    str | None, choice(DTYPES, text="Type of the weights in the new file; by default the original's.")
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    """The shared options of a command, and the model and suite they open; others keep their defaults."""

    data: Annotated[
        str,
        option(
            "A file or folder with your own series (CSV, Parquet, Feather, JSON), a data source "
            "([bold]pocket[/]: real series that come with tsprune; chaos; those of plug-ins), or the root "
            "folder of a GIFT-Eval copy."
        ),
    ] = "pocket"
    configs: Annotated[
        list[str] | None,
        option("Only these configurations, e.g. ett1/H/short or 'ett1/*/short'; repeatable."),
    ] = None
    horizon: Annotated[
        int | None, own_option("Steps to forecast; by default a season.", min=1, max=COUNT)
    ] = None
    freq: Annotated[
        str | None,
        own_option("Frequency, e.g. h, 15min, D or W; by default that of the times."),
    ] = None
    season: Annotated[
        int | None, own_option("Steps in a season; by default those of the frequency.", min=1, max=COUNT)
    ] = None
    windows: Annotated[
        int | None,
        own_option("Windows cut from each series; by default 1 to 5, by its length.", min=1, max=COUNT),
    ] = None
    step: Annotated[
        int | None,
        own_option("Steps between the windows of a series; by default the horizon.", min=1, max=COUNT),
    ] = None
    context: Annotated[int | None, own_option("Most steps of history; by default all.", min=1, max=COUNT)] = (
        None
    )
    id_column: Annotated[str | None, own_option("Column with the series' names.")] = None
    time_column: Annotated[str | None, own_option("Column with the times.")] = None
    target: Annotated[
        list[str] | None,
        own_option("Column to forecast; repeatable: several are variates of one series."),
    ] = None
    past_covariates: Annotated[
        list[str] | None,
        own_option(
            "Column that is read beside the target and not forecast, by models that read past covariates; "
            "repeatable.",
            "--past-covariate",
        ),
    ] = None
    most_windows: Annotated[
        int | None,
        integer(
            "Use at most this many windows, as many of each configuration; by default all.",
            show_default=False,
        ),
    ] = None
    univariate: Annotated[
        bool,
        option(
            "Every variate is a series of its own, also for models that read several together.",
            "--univariate",
        ),
    ] = False
    device: Annotated[
        str | None, option("cpu, cuda, cuda:1, ...; by default CUDA if there is one.", callback=_device)
    ] = None
    dtype: Annotated[
        str,
        choice(
            (*DTYPES, AUTO),
            text="Type of the weights, and of most that is computed; auto: the faster one of float32 and "
            "bfloat16 for this model here.",
        ),
    ] = "float32"
    samples: int | None = None  # its help depends on the command: see `with_shared`
    seed: Annotated[int, integer("Seed of everything that is random.", least=0, most=SEED)] = 0
    batch_size: Annotated[int, integer("Windows forecast together.")] = BATCH_SIZE
    memory: Annotated[
        float,
        decimal(
            "Most that records of unablated passes may hold; with less, more is computed again.",
            metavar="GIB",
        ),
    ] = MEMORY / GIB
    store: Annotated[
        Path | None, option("File that keeps finished work, made if it is not there: a stopped run goes on.")
    ] = None
    quiet: Annotated[bool, option("No progress, no list of what is left out.", "--quiet")] = False
    as_json: Annotated[bool, option("Print JSON instead of tables.", "--json")] = False

    def check(self, *models: str, exported: bool = False) -> None:
        """Refuses data and models that are not there, before anything large is imported.

        exported : whether the command takes exported models, too
        """
        from tsprune.data.sources import data_kind
        from tsprune.deployment.description import is_export, read_description
        from tsprune.models.checkpoints import find

        data_kind(self.data, **self.own)
        for model in models:
            if exported and is_export(model):
                read_description(user_path(model))
            else:
                find(model)

    @functools.cached_property
    def suite(self) -> Suite:
        """The windows of --data and --configs, and of the options for own data."""
        from tsprune.data.sources import open_suite

        found = open_suite(self.data, self.configs, **self.own)
        if self.univariate:
            found = found.univariate()
        if self.most_windows is None:
            return found
        from tsprune.data.stratified import stratified

        return stratified(found, self.most_windows, seed=self.seed)

    @property
    def own(self) -> DataOptions:
        """The options of a user's own data."""
        return {name: getattr(self, name) for name in OWN_DATA}  # type: ignore[return-value]

    def load(self, model: str, *, device: str | None = None) -> Forecaster:
        """A model on --device (or another) in --dtype, with finite weights."""
        from tsprune.models import load

        loaded = load(
            model, device=device or self.device, dtype=self.dtype, samples=self.samples, seed=self.seed
        )
        loaded.require_finite_weights()  # whatever is asked of it
        return loaded

    def predictor(self, model: str) -> Forecaster | Exported:
        """The exported model in a folder, or a model as `load`."""
        from tsprune.deployment import load_exported
        from tsprune.deployment.description import is_export, read_description

        if not is_export(model):
            return self.load(model)
        program = read_description(user_path(model)).graph_format == TORCH_EXPORT
        return load_exported(model, device=self.device if program else None)

    @property
    def memory_bytes(self) -> int:
        """--memory in bytes."""
        return round(self.memory * GIB)

    @contextmanager
    def running(self, label: str) -> Iterator[Options]:
        """Keywords for a function of the API that takes `RunOptions`; its progress is shown meanwhile."""
        with display(err, quiet=self.quiet) as update:
            yield {
                "batch_size": self.batch_size,
                "memory": self.memory_bytes,
                "seed": self.seed,
                "store": self.store,
                "progress": functools.partial(update, label),
            }

    def report(
        self,
        command: str,
        result: Mapping[str, object],
        tables: Callable[[], None],
        *,
        skipped: Sequence[tuple[str, str]] = (),
        failed: Sequence[tuple[str, str]] = (),
        notes: Sequence[str] = (),
    ) -> None:
        """Prints a command's result, as JSON or by `tables`; exit code 1 if something failed."""
        if self.as_json:
            print_json(command, result, skipped=skipped, failed=failed, notes=notes)
        else:
            tables()
            for line in notes:
                note(line)
            if not self.quiet:
                print_skipped(skipped)
        if failed:
            print_failed(failed)
            raise typer.Exit(1)


OWN_DATA = (
    "horizon", "freq", "season", "windows", "step", "context", "id_column", "time_column", "target",
    "past_covariates",
)  # fmt: skip
_GROUPS = {
    "suite": ("data", "configs", "most_windows", *OWN_DATA, "univariate"),
    "model": ("device", "dtype", "samples", "seed"),
    "run": ("device", "samples", "seed", "batch_size", "memory"),
    "output": ("quiet", "as_json"),
}


def with_shared(
    *names: str, samples: str = "as many as upstream draws"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command: it takes these options of `Shared`, and gets them as its argument `shared`.

    names : of options, or of groups of them: suite, model, run, output
    samples : the command's default for --samples, in words
    """
    taken = [option for name in names for option in _GROUPS.get(name, (name,))]
    paths = f"Paths drawn per window by models that sample; by default {samples}."
    hints = typing.get_type_hints(Shared, include_extras=True)
    hints["samples"] = Annotated[int | None, integer(paths, show_default=False)]
    defaults = {field.name: field.default for field in dataclasses.fields(Shared)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            shared = Shared(**{name: given.pop(name) for name in taken})
            command(**given, shared=shared)

        kind = inspect.Parameter.KEYWORD_ONLY
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "shared"]
        parameters = [parameter.replace(kind=kind) for parameter in own]
        parameters += [
            inspect.Parameter(name, kind, default=defaults[name], annotation=hints[name]) for name in taken
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate
