"""Deployment: a forecaster as one graph, which runs without its upstream package, as ONNX without torch."""

from typing import TYPE_CHECKING

from tsprune.lazy import lazily

if TYPE_CHECKING:
    from tsprune.deployment.conversion import export
    from tsprune.deployment.exported import Exported, load_exported
    from tsprune.deployment.self_test import SelfTest, verify_export
else:  # an exported model is loaded in a fraction of the time that torch takes to import
    __getattr__ = lazily(
        __name__,
        {
            "tsprune.deployment.conversion": ["export"],
            "tsprune.deployment.exported": ["Exported", "load_exported"],
            "tsprune.deployment.self_test": ["SelfTest", "verify_export"],
        },
    )

__all__ = ["Exported", "SelfTest", "export", "load_exported", "verify_export"]
