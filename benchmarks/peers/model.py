"""The model behind the loopback server: it chooses a label word, by the loss oracle, or writes freely."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.config.proposer import OpenAIProposerConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.generation import generated
from distributed_tuner.oracles.local.loading import load_chat_model, load_tokenizer
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.proposers.base import Ask
from distributed_tuner.proposers.openai import OpenAIProposer
from distributed_tuner.values import Answer, Array, Batch, Example, Request, Sampling, Text

Message = dict[str, Any]


class Speaker(Protocol):
    """What the server asks of a model."""

    def render(self, messages: Sequence[Message], chat_template: str | None) -> str:
        """Return messages as the model reads them, by a template of the request or the model's own."""
        ...

    def tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has."""
        ...

    def choose(self, prompts: Sequence[str], words: Sequence[str]) -> Array:
        """Return the logits (E, W) of words, each as the continuation of each prompt."""
        ...

    def write(self, prompt: str, max_tokens: int, temperature: float, seed: int | None) -> Answer:
        """Go on from a prompt in free words."""
        ...


def continued(prompt: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return words as they continue a prompt: without their space behind white space."""
    return tuple(word.lstrip() for word in words) if prompt[-1:].isspace() else tuple(words)


def grouped(prompts: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return prompts as groups that share lines: those (without the last newline) and the places of their members.

    A prompt joins its alphabetical neighbours where they have at least half of it in common.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(prompts)), key=prompts.__getitem__):
        if groups:
            shared = _shared([prompts[groups[-1][0]], prompts[place]])
            if 2 * len(shared) >= len(prompts[place]):
                groups[-1].append(place)
                continue
        groups.append([place])
    found = []
    for group in groups:
        shared = _shared([prompts[place] for place in group])
        shortest = min(len(prompts[place]) for place in group)
        found.append((shared[: max(0, shared.rfind("\n", 0, shortest - 1))], group))
    return found


def _shared(texts: list[str]) -> str:
    return os.path.commonprefix(texts)  # noqa: RUF071  # these are texts, no paths


class ServedModel:
    """A causal model twice: as the loss oracle that scores label words, and as transformers has it, which writes.

    ``oracle`` is asked by one thread at a time. What is random is drawn by the prompt and by how often it was asked, so
    that the order in which requests arrive changes nothing.
    """

    def __init__(self, oracle: LossOracle, config: TransformersOracleConfig) -> None:
        self._oracle = oracle
        self._tokenizer = load_tokenizer(config)
        self._config = config
        self._writer: Any = None
        self._asked = Counter[str]()

    def render(self, messages: Sequence[Message], chat_template: str | None) -> str:
        """Return messages as the model reads them.

        Raises:
            ModelError: the template does not fit the messages.
        """
        from jinja2 import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), chat_template=chat_template, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise ModelError(f"messages must fit the chat template, but they do not: {error}") from None
        return text

    def tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has."""
        return len(self._tokenizer(prompt)["input_ids"])

    def choose(self, prompts: Sequence[str], words: Sequence[str]) -> Array:
        """Return the logits (E, W) of the words, prompts that share lines computed together.

        A word of several tokens is scored by its first.

        Raises:
            ModelError: a prompt does not fit into the context.
            TaskError: two words begin with the same token.
        """
        logits_E_W = np.empty((len(prompts), len(words)), np.float32)
        for shared, places in grouped(prompts):
            rests = [prompts[place][len(shared) + 1 if shared else 0 :] for place in places]
            examples = tuple(Example(f"prompt-{place}", rest, "", 0) for place, rest in zip(places, rests, strict=True))
            batch = Batch(examples, tuple(words), "train", label_rule="first")
            logits_E_W[places] = self._oracle.evaluate(Request((Text(shared),), batch, NO_ROWS)).logits[0]
        return logits_E_W

    def write(self, prompt: str, max_tokens: int, temperature: float, seed: int | None) -> Answer:
        """Go on from a prompt in free words.

        Raises:
            ProposerError: prompt and answer do not fit into the context.
        """
        if self._writer is None:
            self._writer = load_chat_model(self._config)
        self._asked[prompt] += 1
        drawn = hashlib.sha256(f"{seed} {self._asked[prompt]} {prompt}".encode()).digest()
        ids = self._tokenizer(prompt)["input_ids"]
        sampling = Sampling(max_tokens, temperature, int.from_bytes(drawn[:4]))
        made = generated(self._writer, self._tokenizer, ids, sampling)
        return Answer(self._tokenizer.decode(made, skip_special_tokens=True), len(ids), len(made))


class Relayed:
    """A speaker whose free words are another server's: an OpenAI-compatible address up to /v1, and a model there.

    Its key is that of OPENAI_API_KEY, which no peer gets to see.
    """

    def __init__(self, near: Speaker, url: str, model: str) -> None:
        self._near = near
        self._url = url
        self._model = model
        self._asked = 0

    def render(self, messages: Sequence[Message], chat_template: str | None) -> str:
        """Return messages as the model reads them; what goes to the other server as one message, tags left out."""
        if chat_template is None:
            return "\n\n".join(str(message["content"]) for message in messages)
        return self._near.render(messages, chat_template)

    def tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has here."""
        return self._near.tokens(prompt)

    def choose(self, prompts: Sequence[str], words: Sequence[str]) -> Array:
        """Return the logits (E, W) of words, of the near model."""
        return self._near.choose(prompts, words)

    def write(self, prompt: str, max_tokens: int, temperature: float, seed: int | None) -> Answer:
        """Have the other server go on.

        Raises:
            ProposerError: no key, a refusal, or no answer in so many attempts.
        """
        config = OpenAIProposerConfig(
            kind="openai", base_url=self._url, model=self._model, max_tokens=max_tokens, temperature=temperature
        )
        self._asked += 1
        return OpenAIProposer(config).answer(Ask(prompt, 1, ("peers", seed or 0, self._asked)))
