"""Find, explain and remove redundancy in pretrained time series foundation models.

Names are imported when they are first used, so that `import tsprune` and the command line's help are fast.
"""

import os
from typing import TYPE_CHECKING, Any

# read when torch and the hub client load: waiting threads that spin make few cores slow (2 to 40
# times on a busy machine), and nothing here may report to anyone
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from tsprune.lazy import lazily

if TYPE_CHECKING:
    from tsprune import data, explain
    from tsprune.anatomy import Anatomy, Component
    from tsprune.deployment import Exported, export, load_exported
    from tsprune.errors import TspruneError
    from tsprune.evaluation import evaluate
    from tsprune.explain.ablation_plot import plot_ablation
    from tsprune.frontiers import frontier
    from tsprune.hooks.ablation import Ablation, ablate
    from tsprune.hooks.capture import Reference, reference
    from tsprune.models import Forecast, Forecaster, load, load_pipeline
    from tsprune.pruning import Plan, heads_at, prune, recover
    from tsprune.pruning.gate import check
    from tsprune.pruning.search import plan
    from tsprune.scores import rank
    from tsprune.studies import study
    from tsprune.sweeps import sweep

    __version__: str

__all__ = [
    "Ablation",
    "Anatomy",
    "Component",
    "Exported",
    "Forecast",
    "Forecaster",
    "Plan",
    "Reference",
    "TspruneError",
    "__version__",
    "ablate",
    "check",
    "data",
    "evaluate",
    "explain",
    "export",
    "frontier",
    "heads_at",
    "load",
    "load_exported",
    "load_pipeline",
    "plan",
    "plot_ablation",
    "prune",
    "rank",
    "recover",
    "reference",
    "study",
    "sweep",
]

if not TYPE_CHECKING:
    # the imports for type checkers above, once more; a test compares them
    _imported = lazily(
        __name__,
        {
            "tsprune.anatomy": ["Anatomy", "Component"],
            "tsprune.deployment": ["Exported", "export", "load_exported"],
            "tsprune.errors": ["TspruneError"],
            "tsprune.evaluation": ["evaluate"],
            "tsprune.explain.ablation_plot": ["plot_ablation"],
            "tsprune.frontiers": ["frontier"],
            "tsprune.hooks.ablation": ["Ablation", "ablate"],
            "tsprune.hooks.capture": ["Reference", "reference"],
            "tsprune.models": ["Forecast", "Forecaster", "load", "load_pipeline"],
            "tsprune.pruning": ["Plan", "heads_at", "prune", "recover"],
            "tsprune.pruning.gate": ["check"],
            "tsprune.pruning.search": ["plan"],
            "tsprune.scores": ["rank"],
            "tsprune.studies": ["study"],
            "tsprune.sweeps": ["sweep"],
        },
    )

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version  # 0.05 s

            try:
                return version("tsprune")
            except PackageNotFoundError:  # imported from a checkout that is not installed
                return "0+unknown"
        return _imported(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
