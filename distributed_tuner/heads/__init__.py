"""Heads: from a model's answer features to label probabilities. ``build`` makes one from its settings.

A head never sees a model or an oracle. Growing the family: one config class, one file, one case below; the conformance
suite takes it from there.
"""

from collections.abc import Mapping
from typing import assert_never

from distributed_tuner.config.head import (
    AffineHeadConfig,
    AutoHeadConfig,
    BatchHeadConfig,
    BiasHeadConfig,
    CentroidHeadConfig,
    ContextualHeadConfig,
    CustomHeadConfig,
    DomainHeadConfig,
    HeadConfig,
    LabelWordsHeadConfig,
    NeighboursHeadConfig,
    NoHeadConfig,
    VocabularyHeadConfig,
)
from distributed_tuner.custom import made, subclass
from distributed_tuner.errors import ConfigError
from distributed_tuner.heads.affine import AffineHead
from distributed_tuner.heads.base import Head
from distributed_tuner.heads.bias import BiasHead
from distributed_tuner.heads.centroid import CentroidHead
from distributed_tuner.heads.label_words import LabelWordsHead
from distributed_tuner.heads.neighbours import NeighboursHead
from distributed_tuner.heads.unlabelled import BatchHead, ContentFreeHead
from distributed_tuner.heads.vocabulary import VocabularyHead
from distributed_tuner.values import Array64

__all__ = ["Head", "build", "restore"]


def build(config: HeadConfig, classes: int) -> Head:
    """Return the head that ``config`` describes, to be fitted. ``classes``: W.

    Raises:
        ConfigError: ``kind: auto`` is not resolved yet, or there is to be none.
    """
    match config:
        case NoHeadConfig():
            raise ConfigError("labels are read by a head, but head is none, which is for targets; choose a kind")
        case AutoHeadConfig():
            raise ConfigError("a head must be resolved before it is fitted, but it is 'auto'; choose a kind")
        case LabelWordsHeadConfig():
            return LabelWordsHead(classes)
        case BiasHeadConfig(strength=strength):
            return BiasHead(classes, strength)
        case AffineHeadConfig(strength=strength):
            return AffineHead(classes, strength)
        case VocabularyHeadConfig(strength=strength):
            return VocabularyHead(classes, strength)
        case NeighboursHeadConfig(neighbours=neighbours):
            return NeighboursHead(classes, neighbours)
        case CentroidHeadConfig():
            return CentroidHead(classes)
        case BatchHeadConfig():
            return BatchHead(classes)
        case ContextualHeadConfig() | DomainHeadConfig():
            return ContentFreeHead(classes)
        case CustomHeadConfig():
            return _own(config, classes)
    assert_never(config)


def _own(config: CustomHeadConfig, classes: int) -> Head:
    """Make a head of the user's own."""
    found: type[Head] = subclass(config, Head)
    if found.words_needed and not config.words:
        raise ConfigError(
            f"{config.import_path} reads words beside the label words (words_needed), but head.words is 0; set it to"
            " how many, 1600 say"
        )
    head: Head = made(config, found, {"classes": classes})
    if getattr(head, "classes", None) != classes:
        raise ConfigError(
            f"the constructor of a head begins with super().__init__(classes), but that of {config.import_path} does"
            " not; add it"
        )
    return head


def restore(config: HeadConfig, classes: int, state: Mapping[str, Array64], words: int | None = None) -> Head:
    """Return a fitted head from its ``state_dict``. ``words``: the number of words that it reads, if known.

    Raises:
        HeadError: it is another head's.
    """
    head = build(config, classes)
    head.load_state_dict(state, words)
    return head
