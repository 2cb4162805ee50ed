"""The twelve tasks of the literature as data: where they lie, how they are worded, what is recommended for them.

Templates and label words follow the code of ZOT (Zhan et al. 2024) and BBT (Sun et al. 2022); BoolQ, WiC and WSC
take the inputs of the LLM-catalyst runs (Guo et al. 2024). What differs from the papers, and why:

- The soft prompt stands in front of the template and is not part of it. The papers join the two by `` . ``; masked
  templates keep that full stop, causal ones drop it.
- Causal CoLA, COPA and sentence-pair templates are clean ones. The published causal runs left the literal words
  ``<mask>`` or ``None`` in them.
- Label words keep the space in front of them, as it is in running text. The published code looks them up without it.
  Long words count by their first token (``label_rule: first``), as published.
- Causal COPA answers with the number of the choice, directly after the word ``choice``; ``0`` and ``1`` after a space
  share their first token in many vocabularies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from distributed_tuner.config.task import HubTaskName, MetricName
from distributed_tuner.values import LossName

Clean: TypeAlias = Literal["escaped_newlines", "connective"]


@dataclass(frozen=True, slots=True)
class Words:
    """A template and its label words in label order."""

    template: str
    label_words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HubTask:
    """One task: ``path`` and ``config`` on the hub, the split to test on, label names in label order."""

    path: str
    config: str | None
    test_split: Literal["test", "validation"]
    label_names: tuple[str, ...]
    causal: Words
    masked: Words
    manual_prompt: str
    description: str
    loss: LossName = "cross_entropy"
    metrics: tuple[MetricName, ...] = ("accuracy",)
    clean: Clean | None = None
    """`escaped_newlines`: line breaks, also written out as backslash n, become spaces. `connective`: COPA's question
    (cause, effect) is also there as `{connective}` (because, so)."""


_GLUE, _SUPER_GLUE = "nyu-mll/glue", "aps/super_glue"
_BAD_GREAT, _NEGATIVE_POSITIVE = ("bad", "great"), ("negative", "positive")
_NO_YES, _no_yes = ("No", "Yes"), ("no", "yes")
_AG_NEWS = ("World", "Sports", "Business", "Tech")
_ACCEPTABLE = ("unacceptable", "acceptable")
_DBPEDIA = (
    "Company", "Education", "Artist", "Athlete", "Office", "Transportation", "Building",
    "Natural", "Village", "Animal", "Plant", "Album", "Film", "Written",
)  # fmt: skip
_DBPEDIA_NAMES = (
    "Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder", "MeanOfTransportation", "Building",
    "NaturalPlace", "Village", "Animal", "Plant", "Album", "Film", "WrittenWork",
)  # fmt: skip

HUB_TASKS: Mapping[HubTaskName, HubTask] = {
    "sst2": HubTask(
        _GLUE, "sst2", "validation", ("negative", "positive"),
        causal=Words("{sentence} . The sentiment is {label_word}", _NEGATIVE_POSITIVE),
        masked=Words(". {sentence} . It was {label_word} .", _BAD_GREAT),
        manual_prompt="Classify the sentiment of the movie review as negative or positive.",
        description="SST-2: the sentiment of a sentence from a film review",
    ),
    "yelp_polarity": HubTask(
        "fancyzhx/yelp_polarity", None, "test", ("1", "2"),
        causal=Words("{text} . It is {label_word}", _NEGATIVE_POSITIVE),
        masked=Words(". {text} . It was {label_word} .", _BAD_GREAT),
        manual_prompt="Classify the sentiment of the customer review as negative or positive.",
        description="Yelp Polarity: the sentiment of a review of a business",
        clean="escaped_newlines",
    ),
    "agnews": HubTask(
        "fancyzhx/ag_news", None, "test", ("World", "Sports", "Business", "Sci/Tech"),
        causal=Words("{text} The news above is about {label_word}", tuple(word.lower() for word in _AG_NEWS)),
        masked=Words(". {label_word} News: {text}", _AG_NEWS),
        manual_prompt="Classify the topic of the news article as world, sports, business or tech.",
        description="AG News: the topic of a news article",
    ),
    "dbpedia": HubTask(
        "fancyzhx/dbpedia_14", None, "test", _DBPEDIA_NAMES,
        causal=Words("{content} The text above is about {label_word}", tuple(word.lower() for word in _DBPEDIA)),
        masked=Words("[ Category: {label_word} ] {content}", _DBPEDIA),
        manual_prompt="Classify what kind of thing the encyclopedia article describes.",
        description="DBPedia: the kind of thing that an article describes, one of 14",
    ),
    "mrpc": HubTask(
        _GLUE, "mrpc", "validation", ("not_equivalent", "equivalent"),
        causal=Words("{sentence1} , {sentence2} ? The answer is {label_word}", _NO_YES),
        masked=Words(". {sentence1} ? {label_word} , {sentence2}", _NO_YES),
        manual_prompt="Do the two sentences mean the same? Answer Yes or No.",
        description="MRPC: whether two sentences are paraphrases",
        loss="hinge",
        metrics=("f1", "accuracy"),
    ),
    "snli": HubTask(
        "stanfordnlp/snli", None, "test", ("entailment", "neutral", "contradiction"),
        causal=Words("{premise} , {hypothesis} ? The answer is {label_word}", ("Yes", "Maybe", "No")),
        masked=Words(". {premise} ? {label_word} , {hypothesis}", ("Yes", "Maybe", "No")),
        manual_prompt="Does the first sentence imply the second? Answer Yes, Maybe or No.",
        description="SNLI: whether a premise entails, allows or contradicts a hypothesis",
        loss="hinge",
    ),
    "rte": HubTask(
        _GLUE, "rte", "validation", ("entailment", "not_entailment"),
        causal=Words("{sentence1} , {sentence2} ? The answer is {label_word}", ("Yes", "No")),
        masked=Words(". {sentence1} ? {label_word} , {sentence2}", ("Yes", "No")),
        manual_prompt="Does the first text imply the second? Answer Yes or No.",
        description="RTE: whether a text entails a hypothesis",
        loss="hinge",
    ),
    "copa": HubTask(
        _SUPER_GLUE, "copa", "validation", ("choice1", "choice2"),
        causal=Words(
            "{premise} {connective} ... choice1: {choice1} choice2: {choice2} The answer is choice{label_word}",
            ("1", "2"),
        ),
        masked=Words(
            ". premise: {premise} . choice1: {choice1} . choice2: {choice2} . question: {question} . "
            "It was {label_word} .",
            ("0", "1"),
        ),
        manual_prompt="Choose the more plausible cause or effect of the premise.",
        description="COPA: which of two choices is the cause or effect of a premise",
        clean="connective",
    ),
    "cola": HubTask(
        _GLUE, "cola", "validation", ("unacceptable", "acceptable"),
        causal=Words("{sentence} . It was {label_word}", _ACCEPTABLE),
        masked=Words(". {sentence} . It was {label_word} .", _ACCEPTABLE),
        manual_prompt="Is the grammar of the sentence acceptable or unacceptable?",
        description="CoLA: whether a sentence is acceptable English",
        metrics=("accuracy", "matthews"),
    ),
    "boolq": HubTask(
        _SUPER_GLUE, "boolq", "validation", ("False", "True"),
        causal=Words("question: {question} . passage: {passage} . yes or no? {label_word}", _no_yes),
        masked=Words(". question: {question} . passage {passage} . yes or no? {label_word}", _no_yes),
        manual_prompt="Answer the question from the passage with yes or no.",
        description="BoolQ: the answer of a passage to a yes-no question",
    ),
    "wic": HubTask(
        _SUPER_GLUE, "wic", "validation", ("False", "True"),
        causal=Words(
            "{sentence1} {sentence2} Does {word} have the same meaning in both sentences? {label_word}", _no_yes
        ),
        masked=Words(
            ". {sentence1} {sentence2} Does {word} have the same meaning in both sentences? {label_word} .", _no_yes
        ),
        manual_prompt="Decide whether the word means the same in both sentences. Answer yes or no.",
        description="WiC: whether a word has the same meaning in two sentences",
    ),
    "wsc": HubTask(
        _SUPER_GLUE, "wsc", "validation", ("False", "True"),
        causal=Words("{span2_text}: {text} Does {span2_text} refer to {span1_text}? {label_word}", _no_yes),
        masked=Words(". {span2_text}: {text} Does {span2_text} refer to {span1_text}? {label_word} .", _no_yes),
        manual_prompt="Decide whom or what the pronoun refers to. Answer yes or no.",
        description="WSC: whether a pronoun refers to a given noun",
    ),
}  # fmt: skip
