"""The examples of parts of one's own pass the suites that are shipped."""

from types import MappingProxyType

from own_head import CentredHead
from own_optimizer import EvolutionStrategy
from own_oracle import HashedWords
from own_proposer import FromAList
from own_task import Parity

from distributed_tuner.testing import FittedHeadSuite, OptimizerSuite, OracleSuite, ProposerSuite, TaskSuite


class TestEvolutionStrategy(OptimizerSuite):
    part = EvolutionStrategy


class TestCentredHead(FittedHeadSuite):
    part = CentredHead


class TestHashedWords(OracleSuite):
    part = HashedWords
    layouts = ("prefix", "suffix")


class TestFromAList(ProposerSuite):
    part = FromAList
    settings = MappingProxyType({"instructions": ["Name the team.", "Who helps best?", "Route the message."]})


class TestParity(TaskSuite):
    part = Parity
    settings = MappingProxyType({"limit": 80})
    wording = MappingProxyType(
        {"text": "text", "label": "even", "template": "{text} is{label_word}", "shots": 8}
        | {"label_words": {"true": " even", "false": " odd"}}
    )
