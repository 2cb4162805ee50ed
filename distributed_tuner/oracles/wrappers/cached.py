"""Cache of answers to texts, on disk, for this run and later ones. A cached answer costs nothing.

Which answers may stand for each other is owned here. A key holds everything that the logits of a text follow from: the
model and its settings (``identity``), label words and their rule, the split, the block of examples that was computed
together, and the text. Soft candidates are hardly ever asked twice and pass through.
"""

import hashlib
import json
import logging
import math
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import diskcache
import numpy as np

from distributed_tuner import __version__
from distributed_tuner.config.oracle import OracleConfig, TransformersOracleConfig
from distributed_tuner.oracles.base import LossOracle, evaluation, tells_nothing
from distributed_tuner.oracles.decoding import evaluation_of_texts
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.values import Array, Cost, Evaluation, Half, OracleInfo, Request, Text

log = logging.getLogger(__name__)

Kept: TypeAlias = tuple[Array, Half, tuple[str | None, ...]]
"""Logits (E, W), features (E, V) and generated texts (E) of one text; no features where no answer words were asked for,
and no texts where none were."""

FORMAT = 1  # of keys and values
LOCK_SECONDS = 5.0  # that a locked database is waited for
FAILURES = (sqlite3.Error, diskcache.Timeout, OSError)

# Settings that say where, how fast and for what price a model answers, never what. All others are part of the key, so
# that a new setting makes answers anew until it is known to belong here.
OUTSIDE = frozenset(
    {
        *("actors", "gpus", "nice", "price", "tile", "cache"),  # the examples of a tile are in the key themselves
        "linear",  # the facts say which it is
        "given",  # and is never kept for
        *("text_cache_gib", "python", "gpu_memory_utilization", "kv_cache_gib", "prefix_caching"),
        *("max_num_seqs", "max_num_batched_tokens"),
        *("api_key_env", "prompt_embeds", "concurrency", "requests_per_minute", "tokens_per_minute"),
        *("timeout", "attempts", "longest_pause", "breaker_failures", "breaker_seconds"),
    }
)
THREADS_OUTSIDE = frozenset({"openai"})  # kinds whose threads only wait; elsewhere they are part of the numbers


class CachedOracle(WrappedOracle):
    """Keeps the finite answers of ``oracle`` to texts in ``directory``, which many processes may share.

    A kept answer costs nothing. Where the directory cannot be used (any more), that is told once and the oracle goes on
    without. ``config`` is what ``oracle`` was built from.
    """

    def __init__(self, oracle: LossOracle, directory: str, config: OracleConfig) -> None:
        super().__init__(oracle)
        self._identity = identity(config, oracle.info)
        self._directory = directory
        self._answers: Any = None
        self._failures = 0  # not reported yet
        try:
            self._answers = diskcache.Cache(directory, timeout=LOCK_SECONDS, disk=_BytesDisk)
        except FAILURES as error:
            self._give_up(error)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        texts = {i: c.text for i, c in enumerate(request.candidates) if isinstance(c, Text)}
        if self._answers is None or request.fresh or request.gradient or not texts:
            answer = self._oracle.evaluate(request, timeout)
            return replace(answer, counts=Counter(answer.counts) + self._failed())
        names = self._names(request, texts)
        known = self._known(request, names)
        rows, asked = dict(known), [i for i in range(len(request.candidates)) if i not in known]
        wide = bool(request.batch.answer_words)
        cost, counts = Cost(), Counter(cached_forwards=len(known) * len(request.batch.examples))
        remarks: tuple[tuple[str, str], ...] = ()
        if asked:
            rest = replace(request, candidates=tuple(request.candidates[i] for i in asked))
            answer = self._oracle.evaluate(rest, timeout)
            features = answer.features if wide else np.zeros((len(asked), 0, 0), np.float16)
            assert features is not None
            told = answer.texts or ((),) * len(asked)
            rows.update(zip(asked, zip(answer.logits, features, told, strict=True), strict=True))
            refusals = bool(answer.counts.get("refused_examples"))
            self._keep({names[i]: rows[i] for i in asked if i in names and _may_stand(rows[i], refusals)})
            cost, counts, remarks = answer.cost, counts + Counter(answer.counts), answer.remarks
        counts = +counts + self._failed()
        every = [rows[i] for i in range(len(request.candidates))]
        if request.batch.question == "texts":
            merged = evaluation_of_texts([texts_E for _, _, texts_E in every], request.batch, cost, counts)
        else:
            features = np.stack([row[1] for row in every]) if wide else None
            merged = evaluation(np.stack([row[0] for row in every]), request.batch, cost, None, counts, features)
        kept = np.array([i in known for i in range(len(rows))]) if known else None
        return replace(merged, kept=kept, remarks=remarks)

    # ------------------------------------------------------------------------------------------------ parts
    def _names(self, request: Request, texts: Mapping[int, str]) -> dict[int, str]:
        """Return the keys of the texts, by the candidates' places."""
        batch = request.batch
        targets = [example.target for example in batch.examples]
        block = _digest(
            {
                "identity": self._identity,
                "label_words": batch.label_words,
                "label_rule": batch.label_rule,
                "split": batch.split,
                **({"answer_words": batch.answer_words} if batch.answer_words else {}),
                **({"decoding": asdict(decoding), "targets": targets} if (decoding := batch.decoding) else {}),
                **({"per": batch.per, "targets": targets} if batch.question == "targets" else {}),
                "prompt": asdict(request.prompt),
                "examples": [(e.uid, e.text, e.cue, e.tail, e.label) for e in batch.examples],
            }
        )
        return {i: _digest([block, text]) for i, text in texts.items()}

    def _known(self, request: Request, names: Mapping[int, str]) -> dict[int, Kept]:
        """Return the answers that are kept, by the candidates' places."""
        batch = request.batch
        words = batch.scores + len(batch.answer_words) if batch.answer_words else 0
        known: dict[int, Kept] = {}
        try:
            for i, name in names.items():
                value = self._answers.get(name)
                if batch.question == "texts":
                    answer = _unpacked_texts(value, len(batch.examples))
                else:
                    answer = _unpacked(value, len(batch.examples), batch.scores, words)
                if answer is not None:
                    known[i] = answer
        except FAILURES as error:
            self._give_up(error)
        return known

    def _keep(self, answers: Mapping[str, Kept]) -> None:
        """Keep answers."""
        if self._answers is None:
            return
        try:
            for name, (logits_E_W, features_E_V, texts_E) in answers.items():
                told = np.ascontiguousarray(logits_E_W, dtype="<f4").tobytes()
                told += np.ascontiguousarray(features_E_V, dtype="<f2").tobytes()
                self._answers.set(name, json.dumps(texts_E).encode() if texts_E else told)
        except FAILURES as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._answers = None
        self._failures += 1
        log.warning(
            "answers are kept in oracle.cache: %s, but it cannot be used (%s: %s); the oracle continues without it."
            " Delete the directory, or name another",
            self._directory,
            type(error).__name__,
            error,
        )

    def _failed(self) -> Counter[str]:
        """Return how often the directory has failed since this was last asked."""
        failures, self._failures = self._failures, 0
        return +Counter(cache_failures=failures)


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
    """Bytes in, bytes out, all within the table. What is not bytes is not ours and is never unpickled.

    Tables of before name files beside them, and somebody else's may name any: one that is not in the directory is
    neither read nor removed.
    """

    def store(self, value: bytes, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, sqlite3.Binary]:
        return 0, diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes | None:
        plain = mode in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY)
        found = super().fetch(mode, filename, value, read) if plain and self._is_inside(filename) else None
        return found if isinstance(found, bytes) else None

    def remove(self, file_path: str) -> None:
        if self._is_inside(file_path):
            super().remove(file_path)

    def _is_inside(self, filename: str | None) -> bool:
        """Tell whether a file is in the directory, whatever links lead to it; True where there is none."""
        if not isinstance(filename, str):
            return filename is None
        inside = os.path.realpath(self._directory)
        with suppress(ValueError):  # no name at all
            return Path(os.path.realpath(os.path.join(inside, filename))).is_relative_to(inside)
        return False


def identity(config: OracleConfig, info: OracleInfo) -> dict[str, Any]:
    """Return, as JSON, what makes a model's answers that model's: settings, facts, files and versions.

    The facts name what settings leave open, such as the dtype and the device of "auto", or a server's URL. Of a local
    directory the files' sizes and times count, of a hub model its commit where it is known.
    """
    outside = OUTSIDE | ({"threads"} if config.kind in THREADS_OUTSIDE else set())
    packages = ("torch", "transformers") if isinstance(config, TransformersOracleConfig) else ()
    return {
        "format": FORMAT,
        "settings": config.model_dump(mode="json", exclude=set(outside)),
        "facts": asdict(info),
        "files": _files(config),
        "versions": {"distributed_tuner": __version__} | {name: version(name) for name in packages},
    }


def _files(config: OracleConfig) -> list[list[Any]] | str:
    if config.kind not in ("transformers", "vllm"):
        return ""
    folder = Path(config.model)
    if folder.is_dir():
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.iterdir())]
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(config.model, "config.json", revision=config.revision)
    except HFValidationError:  # no hub id
        return ""
    return Path(found).parent.name if isinstance(found, str) else ""


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _unpacked(value: bytes | None, examples: int, labels: int, words: int) -> Kept | None:
    """Return kept logits (E, W) and features (E, V); None where there are none, or what is there cannot be they."""
    split = 4 * examples * labels
    if value is None or len(value) != split + 2 * examples * words:
        return None
    logits: Array = np.frombuffer(value[:split], dtype="<f4").astype(np.float32).reshape(examples, labels)
    features: Half = np.frombuffer(value[split:], dtype="<f2").astype(np.float16)
    shaped = features.reshape(examples, words) if words else features.reshape(0, 0)
    kept: Kept = (logits, shaped, ())
    return kept if _may_stand(kept, False) else None


def _unpacked_texts(value: bytes | None, examples: int) -> Kept | None:
    """Return kept texts (E); None where there are none, or what is there cannot be they."""
    try:
        told = json.loads(value or b"")
    except ValueError:
        return None
    if not isinstance(told, list) or len(told) != examples or not all(isinstance(text, str) for text in told):
        return None
    return np.zeros((examples, 0), np.float32), np.zeros((0, 0), np.float16), tuple(told)


def _may_stand(answer: Kept, refusals: bool) -> bool:
    """Tell whether an answer may stand for later ones. A failed or refused example may succeed another time."""
    logits_E_W, _, texts_E = answer
    if texts_E:
        return all(text is not None for text in texts_E)
    wrong = tells_nothing(logits_E_W)[:, None] & (not refusals)
    return bool((np.isfinite(logits_E_W) | wrong).all())
