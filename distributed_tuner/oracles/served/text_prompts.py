"""Requests for text candidates, and what is known of them beforehand: tokens, label words, lengths.

A prompt is one string, [prompt, newline][text + cue]: sent as it is to completions, as one user message to chats. With
the served model's tokenizer tokens are counted; without, every byte is reckoned as one, which they never exceed.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.base import counted, priced, require_label_words
from distributed_tuner.oracles.decoding import decoding_of
from distributed_tuner.oracles.served.logprobs import BY_ID, LabelTokens
from distributed_tuner.oracles.tokens.encoding import TEXT_SEPARATOR, Encoder
from distributed_tuner.oracles.tokens.vocabulary import Vocabulary, sampled
from distributed_tuner.values import Batch, Candidate, Cost, Example, LabelRule, PromptSpec, Request, Text, TokenSpace

UNKNOWN_CONTEXT = 2**31  # tokens; the server knows better
SPECIAL_TOKENS = 8  # that a server may add to a prompt
CHAT_TOKENS = 128  # that a chat template may add, a system prompt of its own among them
WRITTEN = 16  # tokens of an answer in words, with what stands around a label word; or more for a long one
MOST_TOLD = 128  # tokens whose scores vLLM returns in one request, whatever their rank
KEPT_LINES = 2**14  # whose tokens were counted
NO_SOFT = (
    "this server takes no embeddings, hence no soft prompts; set prompt.kind: text, or, for a vLLM server with"
    " --enable-prompt-embeds, oracle.api: completions, oracle.prompt_embeds: true and oracle.embeddings"
)
NO_TOKENIZER = "the served model's tokens are not known here; set oracle.tokenizer to its hub id or directory"


@dataclass(frozen=True, slots=True)
class Source:
    """The model whose tokenizer or embeddings are read (models.py)."""

    model: str
    revision: str | None = None
    trust_remote_code: bool = False


class ServedText:
    """Prompts of one server.

    Raises:
        ModelError: the tokenizer that is named cannot be found.
    """

    def __init__(self, config: OpenAIOracleConfig) -> None:
        from distributed_tuner.oracles.local.loading import load_tokenizer

        self._config = config
        self._chat = config.api == "chat"
        self._system = config.system
        name = config.tokenizer or config.embeddings
        self._tokenizer: Any = None if name is None else load_tokenizer(Source(name))
        self.context = UNKNOWN_CONTEXT
        if self._tokenizer is not None:
            self.context = int(min(UNKNOWN_CONTEXT, self._tokenizer.model_max_length))
            # A label word begins a chat's answer, as it fills a mask: no cue stands right before it.
            self._encoder = Encoder(self._tokenizer, self.context)
            self._labels = Encoder(self._tokenizer, self.context, masked=self._chat)
            self._vocabulary = Vocabulary(self._tokenizer, len(self._tokenizer))
        # Every text stands before every example: too many lines to keep them all, as the encoder would.
        self._count = lru_cache(KEPT_LINES)(self._tokens_of)

    @staticmethod
    def prompt(text: str, example: Example) -> str:
        """Return what the model reads of an example with a prompt in words."""
        return (text + TEXT_SEPARATOR if text else "") + example.text + example.cue

    # ------------------------------------------------------------------------------------------------ tokens
    def tokens(self, candidate: Candidate, example: Example, prompt: PromptSpec) -> int:
        """Return the most tokens that the model can read of a candidate with an example.

        Raises:
            ModelError: a soft candidate, which the server does not take.
        """
        if not isinstance(candidate, Text):
            self.require_soft()
            (length,) = self._encoder.rows_alone(Batch((example,), (), "train"), prompt.layout)
            return prompt.length + length
        line = self.prompt(candidate.text, example)
        around = CHAT_TOKENS if self._chat else 0
        if self._tokenizer is None:
            return len((self._system + line).encode("utf-8", "surrogatepass")) + SPECIAL_TOKENS + around
        return self._count(line) + around + (self._count(self._system) if self._system else 0)

    def _tokens_of(self, line: str) -> int:
        return len(self._tokenizer(line)["input_ids"])

    def answer_tokens(self, batch: Batch) -> int:
        """Return the most tokens that the model may write to a prompt."""
        if self.by_phrase(batch):
            return 1
        if self._config.max_tokens is not None:
            return self._config.max_tokens
        if batch.question == "texts":
            return decoding_of(batch).max_new_tokens
        if self._config.scores == "logprobs":
            return 1
        return max(WRITTEN, *(len(word.encode("utf-8")) for word in batch.label_words))

    def cost(self, request: Request) -> Cost:
        """Return queries and forwards of a request, and the most tokens and dollars that it can cost if no answer has
        to be asked for twice."""
        batch = request.batch
        rows, times = len(batch.examples) * len(request.candidates), self.requests(batch)
        output = self.answer_tokens(batch) * rows * times
        read = sum(self.tokens(c, e, request.prompt) for c in request.candidates for e in batch.examples) * times
        if self.by_phrase(batch):
            phrases = [phrase for example in batch.examples for phrase in self.phrases(batch, example)]
            read += len(request.candidates) * sum(map(self.phrase_tokens, phrases))
        return priced(counted(request, read, output), self._config.price)

    # ------------------------------------------------------------------------------------------------ label phrases
    def by_phrase(self, batch: Batch) -> bool:
        """Tell whether each label word, or each target, has a request of its own, which tells of all its tokens
        (phrases.py).

        Label words of one token have not, where the tokenizer says so.

        Raises:
            ModelError: they would have, but a chat's server cannot be asked so.
        """
        if batch.question == "targets":
            if self._chat or self._config.scores == "generated":
                what = "a chat" if self._chat else "a server with scores: generated"
                raise ModelError(
                    f"{what} tells no log-probabilities of texts that it is given, as objective: likelihood needs them;"
                    " set objective: metric, or oracle.api: completions of a server that repeats its prompt (echo)"
                )
            return True
        if batch.label_rule not in ("sum", "mean") or self._config.scores == "generated" or not batch.label_words:
            return False
        words = [word.strip() if self._chat else word for word in batch.label_words]
        if self._tokenizer is not None and all(self.phrase_tokens(word) == 1 for word in words):
            return False
        if self._chat:
            raise ModelError(
                f"a chat tells no log-probabilities of words that it is given, as task.label_rule: {batch.label_rule}"
                " needs them; set oracle.api: completions, or oracle.scores: generated and task.loss: zero_one, or"
                " choose label words of one token and set oracle.tokenizer"
            )
        return True

    def requests(self, batch: Batch) -> int:
        """Return how many requests a candidate on an example takes."""
        return batch.scores if self.by_phrase(batch) else 1

    def phrases(self, batch: Batch, example: Example) -> tuple[str, ...]:
        """Return what is asked for behind an example, one request each: the label words, or its target."""
        if batch.question == "targets":
            return (example.target,)
        return tuple(word.strip() for word in batch.label_words) if self._chat else batch.label_words

    @staticmethod
    def rule(batch: Batch) -> LabelRule:
        """Return how the log-probabilities of a phrase's tokens become its score."""
        if batch.question == "targets":
            return "mean" if batch.per == "token" else "sum"
        return batch.label_rule

    def phrase_tokens(self, word: str) -> int:
        """Return the tokens of a label word or a target; the most that it can have where the tokenizer is not known."""
        if self._tokenizer is None:
            return len(word.encode("utf-8", "surrogatepass"))
        return len(self._labels.ids(word, False))

    # ------------------------------------------------------------------------------------------------ label words
    def label_tokens(self, batch: Batch) -> LabelTokens:
        """Return the tokens that stand for the label words.

        Raises:
            TaskError: they cannot be told apart; the template goes on after the label word.
        """
        if any(example.tail for example in batch.examples):
            after = next(example.tail for example in batch.examples if example.tail)
            raise TaskError(
                f"a server's model reads nothing after the label word, but the template continues with {after!r};"
                " end it with {label_word}"
            )
        words = tuple(word.strip() for word in batch.label_words) if self._chat else batch.label_words
        if batch.question != "labels":
            return LabelTokens(words)
        if self.by_phrase(batch):
            require_label_words(batch)
            if self._tokenizer is None:
                self._require_apart(batch)
            else:
                self._labels.phrases(batch)
            return LabelTokens(words)
        if self._tokenizer is None or self._config.scores == "generated":
            self._require_different(batch)
            return LabelTokens(words, others=tuple((word,) for word in batch.answer_words))
        bare = replace(batch, label_words=words, answer_words=())
        ids = self._labels.label_ids(bare)
        others = [self._labels.answer_token(bare, word) for word in batch.answer_words]
        names = [
            (word, *(() if token is None else (BY_ID.format(token), *self._written_as(token))))
            for word, token in zip(batch.answer_words, others, strict=True)
        ]
        known = tuple(token for token in others if token is not None)
        texts = tuple(self._written_as(token) for token in ids)
        return LabelTokens(words, ids, texts, tuple(names), known)

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        """Return words, the label words counted but left out, whose scores a server may be asked for by their tokens.

        None without a tokenizer.
        """
        if self._tokenizer is None or self._config.scores == "generated" or self.by_phrase(batch):
            return ()
        words = (word.strip() if self._chat else word for word in sampled(self.vocabulary(TokenSpace("words"))))
        labels = tuple(word.strip() for word in batch.label_words) if self._chat else batch.label_words
        found = self._labels.single_tokens(replace(batch, label_words=labels), words)
        return tuple(islice(found, min(count, MOST_TOLD) - len(batch.label_words)))

    def _written_as(self, token: int) -> tuple[str, ...]:
        """Return how servers may write a token: as its text, or as it stands in the vocabulary; in a chat also bare."""
        text = self._tokenizer.decode([token])
        (raw,) = self._tokenizer.convert_ids_to_tokens([token])
        spaced = (" " + text,) if raw.startswith("\u2581") and not text.startswith(" ") else ()
        bare = (text.strip(),) if self._chat else ()
        return tuple(dict.fromkeys((*spaced, text, raw, *bare)))

    def _require_apart(self, batch: Batch) -> None:
        words = batch.label_words
        twice = next((word for j, word in enumerate(words) if word in words[:j]), None)
        if twice is not None:
            raise TaskError(f"label words must differ, but {twice!r} is there twice; choose others in task.label_words")

    def _require_different(self, batch: Batch) -> None:
        generated = self._config.scores == "generated"
        words = [word.strip().casefold() if generated else word.strip() for word in batch.label_words]
        for i, word in enumerate(words):
            for j, other in enumerate(words):
                if i != j and (word == other or (not generated and other.startswith(word)) or not word):
                    raise TaskError(
                        f"no label word may be the beginning of another where their tokens are not known, but"
                        f" {batch.label_words[i]!r} is of {batch.label_words[j]!r}; choose other words in"
                        " task.label_words, or set oracle.tokenizer"
                    )

    # ------------------------------------------------------------------------------------------------ checks
    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> LabelTokens:
        """Check loss, label words, and that prompts fit into the model's context where it is known.

        Returns the tokens that stand for the label words.

        Raises:
            TaskError: the label words cannot be told apart; an example is blank.
            ModelError: soft rows, which the server does not take; a loss of probabilities that it does not tell; a
                prompt is too long.
        """
        if prompt.length:
            self.require_soft()
        if batch.question == "labels" and self._config.scores == "generated" and batch.loss != "zero_one":
            raise ModelError(
                f"oracle.scores: generated tells which label is written and nothing of its probability, but task.loss"
                f" is {batch.loss!r}; set task.loss: zero_one"
            )
        labels = self.label_tokens(batch)
        by_phrase = self.by_phrase(batch)
        if prompt.length and by_phrase and batch.question == "targets":
            raise ModelError(
                "a server tells no log-probabilities of texts behind embeddings, as soft prompts with objective:"
                " likelihood need them; set prompt.kind: text, objective: metric, or oracle.kind: vllm"
            )
        if prompt.length and by_phrase:
            raise ModelError(
                "a server tells no log-probabilities of words behind embeddings, as soft prompts with label words of"
                " several tokens need them; set prompt.kind: text, task.label_rule: first, or oracle.kind: vllm"
            )
        for example in batch.examples:
            if not example.text + example.cue:
                raise TaskError(
                    f"an example must have text or a cue before the label word, but {example.uid!r} has neither; give"
                    " task.template words between its last column and {label_word}, or drop the blank rows"
                )
        if self._tokenizer is None:
            return labels
        if prompt.length:
            self._encoder.require_fit(batch, prompt)
        for text in texts or ("",):
            longest = max((self.tokens(Text(text), example, prompt) for example in batch.examples), default=0)
            phrases = [one for example in batch.examples for one in self.phrases(batch, example)] if by_phrase else []
            phrase = max(map(self.phrase_tokens, phrases), default=0)
            if longest + phrase + self.answer_tokens(batch) > self.context:
                raise ModelError(
                    f"prompt and text must fit into the model's context of {self.context} tokens, but the text prompt"
                    f" {text[:40]!r} with the longest example makes {longest}; shorten it, or drop the long rows"
                )
        return labels

    def require_soft(self) -> None:
        """Check that the server takes soft candidates.

        Raises:
            ModelError: it does not.
        """
        if not self._config.prompt_embeds:
            raise ModelError(NO_SOFT)

    # ------------------------------------------------------------------------------------------------ token space
    def token_count(self, text: str) -> int:
        """Return how many tokens a text has.

        Raises:
            ModelError: there is no tokenizer.
        """
        if self._tokenizer is None:
            raise ModelError(NO_TOKENIZER)
        return len(self._encoder.ids(text, False))

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        """Return the allowed tokens as they stand in a text; none where there is no tokenizer."""
        return () if self._tokenizer is None else self._vocabulary.pieces(space)
