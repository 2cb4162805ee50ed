"""Proposers: who writes new prompts. ``build`` makes one from its settings.

Growing the family: one config class, one file, one case below; the conformance suite takes it from there.
"""

from pathlib import Path
from typing import assert_never

from distributed_tuner.config.proposer import (
    CustomProposerConfig,
    LocalProposerConfig,
    OpenAIProposerConfig,
    ProposerConfig,
    RandomProposerConfig,
    ReplayProposerConfig,
    VllmProposerConfig,
)
from distributed_tuner.proposers.base import Ask, Proposer, TunedModel
from distributed_tuner.proposers.custom import build_custom
from distributed_tuner.proposers.local import LocalProposer
from distributed_tuner.proposers.openai import OpenAIProposer
from distributed_tuner.proposers.random import RandomProposer
from distributed_tuner.proposers.replay import ReplayProposer
from distributed_tuner.proposers.vllm import VllmProposer

__all__ = ["Ask", "Proposer", "TunedModel", "build"]


def build(config: ProposerConfig, *, root: Path, tuned: TunedModel) -> Proposer:
    """Return the proposer that ``config`` describes.

    root: where relative paths are looked up. tuned: the model that the run tunes, which "vllm" and "random" ask.

    Raises:
        ModelError: a local model cannot be loaded.
        ConfigError: recorded answers cannot be read.
    """
    match config:
        case OpenAIProposerConfig():
            return OpenAIProposer(config)
        case LocalProposerConfig():
            return LocalProposer(config)
        case VllmProposerConfig():
            return VllmProposer(config, tuned)
        case RandomProposerConfig():
            return RandomProposer(config, tuned)
        case ReplayProposerConfig():
            return ReplayProposer(root / config.ledger)
        case CustomProposerConfig():
            return build_custom(config, tuned)
        case _:
            assert_never(config)
