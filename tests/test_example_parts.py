"""The examples of parts of one's own pass the suites that are shipped."""

from types import MappingProxyType

from own_head import CentredHead
from own_optimizer import EvolutionStrategy
from own_oracle import HashedWords
from own_proposer import FromAList

from distributed_tuner.testing import FittedHeadSuite, OptimizerSuite, OracleSuite, ProposerSuite


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
