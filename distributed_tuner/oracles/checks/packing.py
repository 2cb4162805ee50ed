"""Check of packed rows: rows that share a sequence must score as the model scores each of them alone.

Names of models and settings tell of this only where somebody wrote them down. So a few short rows and a long one are
computed both ways in every layout, and again once the layers are laid out for the processor. What is found is kept
under the model's files for every later start on this machine, when a few tokens are asked to make sure. Where the ways
differ, rows are computed whole from then on, which takes longer and is right.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.local.backbone import Trunk, near
from distributed_tuner.oracles.local.machine_cache import keep, recall
from distributed_tuner.oracles.local.packed_rows import PackedRows
from distributed_tuner.oracles.local.row_limits import every_row_whole
from distributed_tuner.oracles.local.shared_weights import fingerprint
from distributed_tuner.oracles.local.whole_rows import WholeRows
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Batch, Example, Layout, PromptSpec

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FORM = 2  # of what is kept
ROWS = 3  # of a parity case's soft prompt
WORDS = "the film was not what I had hoped for , and yet it is good : a slow and warm story of two friends"
CUE = " It was"
LEAST, MOST = 24, 320  # tokens of the long parity case; more of them for smaller models
WORK = 2e10  # weights times tokens of the long parity case
TOLERANCES = {"float32": 1e-3}  # of the logits' spread
FEW_BITS = 0.1

Ways: TypeAlias = PackedRows | WholeRows
Ask: TypeAlias = "Callable[[Ways], Tensor]"


def check_packing(
    trunk: Trunk,
    packed: PackedRows,
    whole: WholeRows,
    encoder: Encoder,
    config: TransformersOracleConfig,
    files: Sequence[Path],
) -> list[str]:
    """Find how far rows may share a sequence (the encoder's ``reach``; 0: not at all), and lay the model out.

    Returns notes for the user.

    ``files``: the model's, under which the answers are kept; none where they must be found anew.

    Raises:
        ModelError: the model cannot be asked at all.
    """
    key = None
    if files:
        libraries = {name: version(name) for name in ("torch", "transformers")}
        key = [FORM, libraries, fingerprint(files, str(trunk.dtype)), trunk.device.type, encoder.reach]
    soft = list(_soft_asks(trunk, encoder))
    known = _kept(key, lambda: _compared(trunk, packed, whole, encoder, soft))
    trunk.head.own, trunk.no_rows = known["own_head"], known["no_rows"]
    notes = []
    if known["unlike_ids"]:
        notes.append(
            "the model reads its tokens' ids in addition to their embeddings: given as embeddings, as here, a text has"
            " other scores"
        )
    if known["why"]:
        encoder.reach = 0
        trunk.keep_whole(known["why"])
        notes.append(every_row_whole(known["why"]))
    for note in notes:
        log.warning("%s: %s", trunk.name, note)
    way = packed if encoder.reach else whole

    def long_canaries() -> "Tensor":
        import torch

        asks = [_in_words, *(() if trunk.no_rows else soft)]
        return torch.cat([trunk.head.scores(ask(way)).flatten() for ask in asks])

    def lay_out() -> dict[str, Any]:
        trunk.lay_out(config, long_canaries, rewritten=encoder.reach >= encoder.context)
        return {"linear": trunk.linear, "rewritten": trunk.fused > 0}

    if trunk.stays(config):
        return notes
    laid = None if key is None else [*key, config.linear, config.thread_count]
    found = _kept(laid, lay_out)
    if not trunk.laid_out:
        asked = config.model_copy(update={"linear": found["linear"]})
        trunk.lay_out(asked, trunk.canaries, rewritten=found["rewritten"])
    return notes


def _kept(key: Any, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was found under a key before, or find it and keep it."""
    known: dict[str, Any] | None = None if key is None else recall("ways", key)
    if known is None:
        known = find()
        if key is not None:
            keep("ways", key, known)
    return known


# --------------------------------------------------------------------------------------------------- the comparison
def _compared(
    trunk: Trunk, packed: PackedRows, whole: WholeRows, encoder: Encoder, soft: "Sequence[Ask]"
) -> dict[str, Any]:
    """Return what is kept.

    ``why``: rows are computed whole; empty where they need not. ``own_head``: logits are read from the model's own
    head. ``unlike_ids``: a text has other scores by its tokens' ids than by their embeddings. ``no_rows``: why the
    model takes no rows that are no token's; empty where it does.
    """
    asks: list[Ask] = [_in_words]
    product = not trunk.masked and not trunk.head.own  # of hidden states and rows of the head
    trunk.head.own |= product
    try:
        unlike_ids = not alike(trunk, *(trunk.head.scores(read) for read in _text_twice(trunk, whole, encoder)))
        no_rows = _failing(soft[0], whole) if trunk.reads_ids else ""
        asks.extend([] if no_rows else soft)
        wanted = [trunk.head.scores(ask(whole)) for ask in asks]
    except Exception as error:  # whatever the code of a model raises that cannot be asked so
        raise ModelError(
            f"the oracle needs a model that reads embeddings in the place of token ids, but {trunk.name} fails on them"
            f" ({_line(error)}); choose one of docs/models.md"
        ) from error
    trunk.head.own &= not product
    why = trunk.whole or _differing(trunk, packed, asks, wanted)
    own_head = trunk.head.own or bool(why and product and _differing(trunk, whole, asks[:1], wanted[:1]))
    return {"why": why, "own_head": own_head, "unlike_ids": unlike_ids, "no_rows": no_rows}


def _failing(ask: "Ask", way: Ways) -> str:
    try:
        ask(way)
    except Exception as error:  # likewise
        return _line(error)
    return ""


def _differing(trunk: Trunk, way: Ways, asks: "Sequence[Ask]", wanted: "Sequence[Tensor]") -> str:
    """Return how rows that are computed one way differ from what is wanted; empty where they do not."""
    if trunk.head.own:
        return "its head is more than one product"
    for ask, scores in zip(asks, wanted, strict=True):
        try:
            got = trunk.head.scores(ask(way))
        except ModelError as error:
            return _line(error)
        except Exception as error:  # likewise: a model whose layers do not take what they are handed
            return f"it fails on rows that share a sequence ({_line(error)})"
        if isinstance(way, PackedRows) and trunk.mixes:
            return "some of its layers mix tokens by other means than attention"
        if not alike(trunk, got, scores):
            off = float((got - scores).norm() / scores.norm())
            return f"rows that share a sequence have other scores than alone (by {off:.2g} of their spread)"
    return ""


def alike(trunk: Trunk, got: "Tensor", wanted: "Tensor") -> bool:
    """Tell whether scores differ from what is wanted by no more than rounding in the model's dtype."""
    return near(got, wanted, TOLERANCES.get(str(trunk.dtype).removeprefix("torch."), FEW_BITS))


def _in_words(way: Ways) -> "Tensor":
    return way.text("Classify", _batch(["A film"]))


def _soft_asks(trunk: Trunk, encoder: Encoder) -> "Iterator[Ask]":
    """Yield what is asked with rows: two soft prompts with short texts and a long one, in every layout.

    Rows are as long as the reach allows: they end where a window would begin to count.
    """
    import torch

    room = min(MOST, max(LEAST, int(WORK / max(1, trunk.weights))), encoder.reach if encoder.reach else LEAST)
    texts = ("A film", "", _words(encoder, room - ROWS - len(encoder.ids(CUE, False)) - len(encoder.specials())))
    batch = _batch(texts)
    tokens = np.arange(2 * ROWS).reshape(2, ROWS) * (len(trunk.table) // (2 * ROWS + 1))
    base = trunk.embed(tokens)
    noise = torch.from_numpy(standard_normal(("ways",), base.numel())).view(base.shape).to(base)
    rows = base + noise * base.float().std().to(base.dtype)
    layouts: tuple[Layout, ...] = ("prefix",) if trunk.masked else ("prefix", "suffix")
    for layout in layouts:
        spec = PromptSpec(ROWS, "zeros", "", layout, "paper")
        yield lambda way, spec=spec: way.soft(rows, batch, spec)  # type: ignore[misc]


def _words(encoder: Encoder, most: int) -> str:
    """Return a text of so many tokens at most."""
    words = list(islice(cycle(WORDS.split()), max(0, most)))
    while words and len(encoder.ids(" ".join(words), True)) > most:
        words.pop()
    return " ".join(words)


def _batch(texts: Sequence[str]) -> Batch:
    examples = tuple(Example(f"parity-{i}", text, CUE, 0) for i, text in enumerate(texts))
    return Batch(examples, (" good", " bad"), "test")


def _text_twice(trunk: Trunk, whole: WholeRows, encoder: Encoder) -> "tuple[Tensor, Tensor]":
    """Return what is read behind a text by its tokens' ids and by their embeddings, (1, ...) each."""
    batch = _batch(["A film"])
    (example,) = batch.examples
    if trunk.masked:
        line = encoder.line_masked(example, batch)
        return trunk.by_ids(line.ids, line.mask), whole.text("", batch)[:, 0]
    ids = [*encoder.prompt(""), *encoder.line(example, False)]
    return trunk.by_ids(ids, -1), whole.text("", batch)[:, 0]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
