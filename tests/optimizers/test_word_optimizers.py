"""Searches of prompts in words: what they find, and what they may ask."""

import json

import numpy as np
import pytest

from distributed_tuner.config.optimizer import NevergradConfig, OptimizerConfig, TokenEditConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.values import Text

KEY = (7, "trial-a", 0)
SENTENCE = "say whether this film review is good or bad in one word"
TARGET = SENTENCE.split()
WORDS = tuple(dict.fromkeys([*(f"noise{i}" for i in range(20)), *TARGET]))
SLOTS = len(TARGET)
MEMBERS: dict[str, OptimizerConfig] = {
    "token_edit": TokenEditConfig(),
    "token_edit_many": TokenEditConfig(popsize=12, parents=2, edits=3),
    "DiscreteOnePlusOne": NevergradConfig(space="words", optimizer="DiscreteOnePlusOne"),
    "PortfolioDiscreteOnePlusOne": NevergradConfig(space="words", optimizer="PortfolioDiscreteOnePlusOne"),
    "DoubleFastGADiscreteOnePlusOne": NevergradConfig(space="words", optimizer="DoubleFastGADiscreteOnePlusOne"),
}
NEVERGRAD = sorted(name for name, config in MEMBERS.items() if isinstance(config, NevergradConfig))


def make(
    config: OptimizerConfig,
    start: str = "",
    dim: int = SLOTS,
    words: tuple[str, ...] = WORDS,
    key: tuple[int | str, ...] = KEY,
) -> Optimizer:
    return build(config, dim=dim, key=key, steps=50, start=start, vocabulary=words)


def text_of(candidate: object) -> str:
    assert isinstance(candidate, Text)
    return candidate.text


def wrong_slots(text: str) -> float:
    """How many of the target's slots hold another word."""
    words = text.split()
    return float(sum(at >= len(words) or words[at] != word for at, word in enumerate(TARGET)))


def run(optimizer: Optimizer, steps: int) -> list[list[str]]:
    """Run some steps and return what each asked."""
    asked = []
    for _ in range(steps):
        asked.append([text_of(candidate) for candidate in optimizer.ask()])
        optimizer.tell([wrong_slots(text) for text in asked[-1]])
    return asked


@pytest.fixture(params=sorted(MEMBERS))
def config(request: pytest.FixtureRequest) -> OptimizerConfig:
    return MEMBERS[request.param]


# ----------------------------------------------------------------------------------------------------- what is found
@pytest.mark.parametrize(
    ("name", "queries"), [("token_edit", 800), ("DiscreteOnePlusOne", 400), ("DoubleFastGADiscreteOnePlusOne", 400)]
)
def test_a_hidden_sentence_is_approached_far_beyond_random_texts(name: str, queries: int) -> None:
    found, random_best = [], []
    for seed in range(2):
        optimizer = make(MEMBERS[name], "tell me what you think of it all now please", key=(seed, "trial", 0))
        asked: list[str] = []
        while len(asked) < queries:
            asked += run(optimizer, 1)[0]
        found.append(wrong_slots(text_of(optimizer.recommend())))
        assert found[-1] == min(wrong_slots(text) for text in asked)
        rng = np.random.default_rng(seed)
        random_best.append(min(wrong_slots(" ".join(rng.choice(WORDS, SLOTS))) for _ in asked))
    assert np.mean(found) <= np.mean(random_best) - 3


# ------------------------------------------------------------------------------------------------- what may be asked
@pytest.mark.parametrize("start", ["", "do tell", "one two three four five six seven eight nine ten"])
def test_prompts_are_short_enough_and_of_known_words(config: OptimizerConfig, start: str) -> None:
    optimizer = make(config, start, dim=5)
    assert text_of(optimizer.recommend()) == start
    asked = [text for step in run(optimizer, 25) for text in step]
    assert asked[0] == start
    edits = [text for text in asked if text != start]
    assert {word for text in edits for word in text.split(" ")} <= {*WORDS, *start.split()}
    assert {len(text.split(" ")) for text in edits} <= {1, 2, 3, 4, 5}
    assert len({len(text.split()) for text in edits}) > 2  # they grow and shrink
    assert len({word for text in edits for word in text.split()}) > len(WORDS) / 2


def test_a_start_is_asked_to_the_letter(config: OptimizerConfig) -> None:
    start = "  Tell me:\n\n  good, or bad? "
    optimizer = make(config, start)
    assert run(optimizer, 1)[0][0] == start
    optimizer.relocate("Well,  which?\n")
    assert text_of(optimizer.recommend()) == "Well,  which?\n"
    asked = run(optimizer, 3)
    assert asked[0][0] == "Well,  which?\n"
    assert "Well," in " ".join(text for step in asked for text in step[1:]).split(" ")


def test_a_prompt_may_be_one_word(config: OptimizerConfig) -> None:
    asked = [text for step in run(make(config, "noise1", dim=1), 8) for text in step]
    assert {len(text.split()) for text in asked} <= {0, 1}
    assert len(set(asked)) > 5


def test_a_move_forgets_what_was_best(config: OptimizerConfig) -> None:
    optimizer = make(config, SENTENCE)
    run(optimizer, 3)
    assert text_of(optimizer.recommend()) == SENTENCE
    optimizer.relocate("noise1 noise2")
    run(optimizer, 1)
    assert wrong_slots(text_of(optimizer.recommend())) > 0


# --------------------------------------------------------------------------------------------------------- token_edit
def test_edits_are_new_while_there_are_new_ones() -> None:
    asked = [text for step in run(make(TokenEditConfig(popsize=10), "noise1 noise2"), 40) for text in step]
    assert len(set(asked)) == len(asked)
    small = run(make(TokenEditConfig(popsize=4), "a", dim=1, words=("a", "b", "c")), 3)  # three texts in all
    assert [len(step) for step in small] == [4, 4, 4]
    assert set(small[0]) == {"a", "b", "c"}


def test_the_mean_number_of_edits_is_as_set() -> None:
    start = [f"word{i}" for i in range(200)]
    optimizer = make(TokenEditConfig(popsize=400, edits=4), " ".join(start), dim=200, words=("x", "y"))
    gone = [len(set(start) - set(text.split())) for text in run(optimizer, 1)[0][1:]]
    # half of the kinds of edit, in a text as long as it may be, take a word away; then an insertion is possible too
    assert 1.8 < np.mean(gone) < 3.0
    assert min(gone) == 0 and max(gone) > 6


def test_the_newest_of_equals_is_recommended_and_failures_are_asked_again() -> None:
    optimizer = make(TokenEditConfig(popsize=3, parents=2), "noise1")
    optimizer.tell([np.nan] * len(optimizer.ask()))
    assert text_of(optimizer.recommend()) == "noise1"
    first = [text_of(candidate) for candidate in optimizer.ask()]
    assert first[0] == "noise1"
    optimizer.tell([0.5, np.nan, 0.5])
    assert text_of(optimizer.recommend()) == "noise1"
    second = [text_of(candidate) for candidate in optimizer.ask()]
    assert first[0] not in second and first[2] not in second
    optimizer.tell([0.7, 0.5, np.nan])
    assert text_of(optimizer.recommend()) == second[1]
    assert optimizer.metrics() == {"best_loss": 0.5, "step_loss": 0.5, "failed_queries": 5.0}


def test_a_state_is_plain_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed_tuner.optimizers.token_edit.REMEMBERED", 20)
    optimizer, clone = make(MEMBERS["token_edit"], "noise1"), make(MEMBERS["token_edit"], "elsewhere")
    run(optimizer, 10)
    state = json.loads(json.dumps(optimizer.state_dict()))
    assert len(state["scored"]) == 20 and len(state["pool"]) == 4
    clone.load_state_dict(state)
    assert run(clone, 5) == run(optimizer, 5)


# ---------------------------------------------------------------------------------------------------------- nevergrad
@pytest.mark.parametrize("name", ["RandomSearch", "CMA", "DE", "NGOpt", "DiscreteLenglerOnePlusOne", "cGA"])
def test_other_names_of_the_registry_work_too(name: str) -> None:
    optimizer = make(NevergradConfig(space="words", optimizer=name), "tell me")
    start = wrong_slots("tell me")
    run(optimizer, 20)
    assert wrong_slots(text_of(optimizer.recommend())) < start


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ConfigError, match="DiscreteOnePlusOne"):
        make(NevergradConfig(space="words", optimizer="DiscreteOnePlusTwo"))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_so_many_words_are_searched_and_the_starts_are_among_them(count: int) -> None:
    config = NevergradConfig(space="words", optimizer="RandomSearch", words=count, num_workers=50)
    texts = [run(make(config, "tell me", key=(seed, "trial", 0)), 4) for seed in range(2)]
    used = [{word for step in one for text in step for word in text.split()} for one in texts]
    assert all(len(words) == count and {"tell", "me"} <= words for words in used)
    assert (used[0] == used[1]) == (count == 2)  # each seed draws its own


@pytest.mark.parametrize("name", NEVERGRAD)
def test_a_clone_takes_its_words_along(name: str) -> None:
    config = MEMBERS[name].model_copy(update={"words": 8})
    original, clone = make(config, "tell me"), make(config, "elsewhere", key=(7, "trial-b", 0))
    mine = {word for step in run(original, 20) for text in step for word in text.split()}
    clone.load_state_dict(original.state_dict())
    assert text_of(clone.recommend()) == text_of(original.recommend())
    assert {word for step in run(clone, 20) for text in step for word in text.split()} <= mine


def test_a_state_fits_only_its_own_space() -> None:
    is_discrete = make(NevergradConfig(space="words", optimizer="DE"))
    with pytest.raises(ConfigError, match="words=7"):
        is_discrete.load_state_dict(make(NevergradConfig(space="words", optimizer="DE", words=7)).state_dict())
    soft = build(NevergradConfig(optimizer="DE"), dim=SLOTS, key=KEY, steps=50)
    with pytest.raises(ConfigError, match="space=latent"):
        is_discrete.load_state_dict(soft.state_dict())
