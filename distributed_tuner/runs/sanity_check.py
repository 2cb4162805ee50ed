"""The sanity check before the first trial: an oracle must answer the question that it was asked, or nothing begins.

What must agree is oracles/checks/parity.py's. Here is what a run asks with, and what follows from a noisy endpoint.
"""

from collections.abc import Callable

from distributed_tuner.config.oracle import (
    AnalyticOracleConfig,
    OpenAIOracleConfig,
    OracleConfig,
    TransformersOracleConfig,
)
from distributed_tuner.errors import ModelError, TunerError
from distributed_tuner.ledger.rows import CostRow, ParityRow
from distributed_tuner.oracles.checks.parity import Parity, Plain, check
from distributed_tuner.oracles.checks.reference_forward import plain_config, plain_logits
from distributed_tuner.oracles.local.loading import load_tokenizer
from distributed_tuner.oracles.tiling import summed
from distributed_tuner.preflight.parity_cases import parity_cases
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.runs.pool import OraclePool
from distributed_tuner.values import Array, Request

ONE_MORE = 0.5  # tokens a forward beyond those counted, from which a server seems to add one
MOST_UNUSABLE = 0.25  # of the answers: one that cannot be read fails its prompt
SHOWN = 3  # refused examples that are named in a row's note
TEMPLATE = 4.0  # ... and from which it seems to put a template around the prompt

HINT = (
    "usual causes: a begin-of-text token that is added twice, a chat template around a base model, a label word that"
    " the server splits into two tokens, or another model or revision than the one compared with"
)


def pass_sanity_check(
    prepared: Prepared, pool: OraclePool, note: Callable[[str], None]
) -> tuple[list[ParityRow], dict[str, float]]:
    """Ask the pool what must agree, once for each layout of the trials' prompts.

    Returns the rows, and the tokens other than label words in the answers (``Evaluation.tops``).

    Raises:
        ModelError: answers disagree, so that no loss could be trusted.
    """
    info = pool.oracle.info
    rows, tops = [], []
    for case in parity_cases([plan.experiment for plan in prepared.plans], prepared.tasks):
        skipped: list[str] = []
        named = case.canaries(info.width, info.embedding_std)
        found = check(pool.oracle, named, case.batch, case.prompt, _plain(pool, skipped), HINT)
        tops.append(found.tops)
        notes = [*_notes(pool.config, found), *skipped]
        rows.append(_row(case.layout, found, "; ".join(notes)))
        if notes or not isinstance(pool.config, AnalyticOracleConfig):
            note(told(rows[-1]))
    return rows, summed(tops)


def told(row: ParityRow) -> str:
    """Return a row in words."""
    agreed = [("asked again", row.repeated), ("alone and together", row.together), ("the plain pass", row.plain)]
    spelled = ", ".join(f"{name} {value:.2g}" for name, value in agreed if value is not None)
    return f"parity ({row.layout}): losses agree within: {spelled}" + (f"; {row.note}" if row.note else "")


def _plain(pool: OraclePool, skipped: list[str]) -> Plain:
    """Return the plain path; ``skipped`` is called if there is one that cannot be used."""
    config = plain_config(pool.config, pool.oracle.info)

    def plain(request: Request) -> Array | None:
        if config is None:
            return None
        try:
            return plain_logits(config, request)
        except TunerError as error:
            skipped.append(f"not compared with a plain pass: {error}")
            return None

    return plain


def _notes(config: OracleConfig, found: Parity) -> list[str]:
    """Return what does not stop a run, but should be known.

    Raises:
        ModelError: a server of completions reads so many tokens more than it was sent that it must add a template.
    """
    notes = []
    if found.noisy:
        unkept = "" if config.cache is None else ", so that no answers are kept (oracle.cache)"
        notes.append(f"the endpoint is noisy: asked again, losses differ by up to {found.repeated:.2g}{unkept}")
    if absent := found.counts.get("absent_examples"):
        notes.append(f"{absent} answers had no label word{_told(found, 'other_answer')}")
    if absent := found.counts.get("absent_labels"):
        notes.append(f"{absent} label words were absent from the answers' top logprobs, so that losses are bounds")
    if short := found.counts.get("short_answers"):
        notes.append(
            f"{short} of these answers listed fewer tokens than oracle.top_logprobs; where a"
            " server lists only the written token, oracle.scores: generated (task.loss: zero_one) says as much"
        )
    if unmatched := found.counts.get("unmatched_answers"):
        notes.append(f"{unmatched} answers named no label word{_told(found, 'other_answer')}")
    if unusable := found.counts.get("unusable_answers"):
        told = f"{unusable} answers could not be read{_told(found, 'unusable_answer')}"
        if unusable > MOST_UNUSABLE * found.cost.forwards:
            raise ModelError(f"most answers must tell the label words' scores, but of {found.cost.forwards} {told}")
        notes.append(f"{told}; each fails its prompt")
    refused = [message for kind, message in found.remarks if kind == "refused_example"]
    notes += refused[:SHOWN] + ([f"and {len(refused) - SHOWN} more are"] if len(refused) > SHOWN else [])
    if isinstance(config, OpenAIOracleConfig) and (config.tokenizer or config.embeddings):
        notes += _served_notes(config, found.beyond)
    return notes


def _told(found: Parity, kind: str) -> str:
    """Return the first remark of a kind, in brackets."""
    return next((f" ({message})" for known, message in found.remarks if known == kind), "")


def _served_notes(config: OpenAIOracleConfig, beyond: float) -> list[str]:
    name = config.tokenizer or config.embeddings
    assert name is not None
    if config.api == "chat":
        if getattr(load_tokenizer(TransformersOracleConfig(kind="transformers", model=name)), "chat_template", None):
            return []
        return [f"the tokenizer {name!r} has no chat template: a base model is asked with oracle.api: completions"]
    if config.scores != "logprobs":  # the length of an answer in words is not known beforehand
        return []
    if beyond >= TEMPLATE:
        raise ModelError(
            f"completions must read the prompt as it is sent, but the server read {beyond:.1f} tokens more a prompt"
            f" than the tokenizer {name!r} counts: it puts a chat template around it, or has another tokenizer; set"
            " oracle.api: chat, or oracle.tokenizer to the served model's own"
        )
    if beyond > ONE_MORE:
        return [
            f"the server read {beyond:.1f} tokens more a prompt than the tokenizer counts: perhaps a begin-of-text"
            " token that is added twice"
        ]
    return []


def _row(layout: str, found: Parity, note: str) -> ParityRow:
    return ParityRow(
        layout=layout,
        repeated=found.repeated,
        together=found.together,
        plain=found.plain,
        noisy=found.noisy,
        note=note,
        cost=CostRow.of(found.cost),
    )
