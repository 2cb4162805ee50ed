"""Proposers: who writes new prompts. ``build`` makes one from its settings.

Growing the family: one config class, one file, one case below; the conformance suite takes it from there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from distributed_tuner.config.proposer import (
    LocalProposerConfig,
    OpenAIProposerConfig,
    ProposerConfig,
    RandomProposerConfig,
    ReplayProposerConfig,
)
from distributed_tuner.proposers.base import Answer, Ask, Proposer
from distributed_tuner.proposers.local import LocalProposer
from distributed_tuner.proposers.openai import OpenAIProposer
from distributed_tuner.proposers.random import RandomProposer
from distributed_tuner.proposers.replay import ReplayProposer

__all__ = ["Answer", "Ask", "Proposer", "build"]


def build(config: ProposerConfig, *, root: Path, words: Callable[[], tuple[str, ...]]) -> Proposer:
    """Return the proposer that ``config`` describes.

    root: where relative paths are looked up. words: returns the tokens that prompts may be made of; called by "random"
    alone, with its first request.

    Raises:
        ModelError: a local model cannot be loaded.
        ConfigError: recorded answers cannot be read.
    """
    match config:
        case OpenAIProposerConfig():
            return OpenAIProposer(config)
        case LocalProposerConfig():
            return LocalProposer(config)
        case RandomProposerConfig():
            return RandomProposer(config, words)
        case ReplayProposerConfig():
            return ReplayProposer(root / config.ledger)
        case _:
            assert_never(config)
