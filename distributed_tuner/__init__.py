"""Black-box prompt tuning of frozen language models: in this process, or on a pool of Ray actors.

The Python API is what ``__all__`` names. Each is imported when it is first asked for, so that importing the package is
cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distributed_tuner.api import load, tune
    from distributed_tuner.callbacks import Callback, EndEvent, EvaluationEvent, RestartEvent, StepEvent
    from distributed_tuner.classifier import PromptClassifier
    from distributed_tuner.config.budget import BudgetConfig as Budget
    from distributed_tuner.config.first_order import AdamWConfig as AdamW
    from distributed_tuner.config.first_order import SgdConfig as Sgd
    from distributed_tuner.config.optimizer import CmaConfig as Cma
    from distributed_tuner.config.optimizer import NevergradConfig as Nevergrad
    from distributed_tuner.config.optimizer import RandomSearchConfig as RandomSearch
    from distributed_tuner.config.optimizer import TokenEditConfig as TokenEdit
    from distributed_tuner.config.optimizer import ZotConfig as Zot
    from distributed_tuner.config.oracle import AnalyticOracleConfig as Analytic
    from distributed_tuner.config.oracle import OpenAIOracleConfig as Server
    from distributed_tuner.config.oracle import TransformersOracleConfig as Transformers
    from distributed_tuner.config.oracle import VllmOracleConfig as Vllm
    from distributed_tuner.config.prompt import SoftPromptConfig as SoftPrompt
    from distributed_tuner.config.prompt import TextPromptConfig as TextPrompt
    from distributed_tuner.errors import TunerError
    from distributed_tuner.heads.base import Head
    from distributed_tuner.optimizers.base import Optimizer
    from distributed_tuner.oracles.base import LossOracle
    from distributed_tuner.result import Result
    from distributed_tuner.tasks.base import Task

__all__ = [
    "tune",
    "load",
    "Result",
    "PromptClassifier",
    "Callback",
    "StepEvent",
    "EvaluationEvent",
    "RestartEvent",
    "EndEvent",
    "Transformers",
    "Server",
    "Vllm",
    "Analytic",
    "Task",
    "SoftPrompt",
    "TextPrompt",
    "Budget",
    "Cma",
    "Zot",
    "RandomSearch",
    "Nevergrad",
    "TokenEdit",
    "AdamW",
    "Sgd",
    "LossOracle",
    "Optimizer",
    "Head",
    "TunerError",
]

_PLACES = {
    "tune": "api.tune",
    "load": "api.load",
    "Result": "result.Result",
    "PromptClassifier": "classifier.PromptClassifier",
    "Callback": "callbacks.Callback",
    "StepEvent": "callbacks.StepEvent",
    "EvaluationEvent": "callbacks.EvaluationEvent",
    "RestartEvent": "callbacks.RestartEvent",
    "EndEvent": "callbacks.EndEvent",
    "Transformers": "config.oracle.TransformersOracleConfig",
    "Server": "config.oracle.OpenAIOracleConfig",
    "Vllm": "config.oracle.VllmOracleConfig",
    "Analytic": "config.oracle.AnalyticOracleConfig",
    "Task": "tasks.base.Task",
    "SoftPrompt": "config.prompt.SoftPromptConfig",
    "TextPrompt": "config.prompt.TextPromptConfig",
    "Budget": "config.budget.BudgetConfig",
    "Cma": "config.optimizer.CmaConfig",
    "Zot": "config.optimizer.ZotConfig",
    "RandomSearch": "config.optimizer.RandomSearchConfig",
    "Nevergrad": "config.optimizer.NevergradConfig",
    "TokenEdit": "config.optimizer.TokenEditConfig",
    "AdamW": "config.first_order.AdamWConfig",
    "Sgd": "config.first_order.SgdConfig",
    "LossOracle": "oracles.base.LossOracle",
    "Optimizer": "optimizers.base.Optimizer",
    "Head": "heads.base.Head",
    "TunerError": "errors.TunerError",
}
"""Where each of them is."""


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = place.rpartition(".")
    found = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
