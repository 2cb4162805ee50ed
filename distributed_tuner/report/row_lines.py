"""Rows of a ledger as one line each, for the lines of a run and for the page that follows it."""

from distributed_tuner.ledger.quick_rows import AnyRow, Eval, QuickEval
from distributed_tuner.ledger.rows import EvalRow, EventRow, RestartRow, ScreenRow, StageRow, SurveyRow
from distributed_tuner.report import formatting

_SHOWN = 60  # characters of a prompt in words


def row_line(row: AnyRow, metric: str) -> str:
    """Return what a row says, in words; empty for rows that are numbers or are shown elsewhere."""
    match row:
        case EvalRow() | QuickEval():
            return evaluation(row, metric)
        case RestartRow():
            return f"restart after {row.spent.queries} queries: {restart(row)}"
        case SurveyRow():
            return formatting.survey(row)
        case ScreenRow():
            return formatting.screen(row)
        case StageRow():
            return stage(row, metric)
        case EventRow():
            return formatting.one_line(row.message, 500)
    return ""


def evaluation(row: Eval, metric: str) -> str:
    """Return how the recommended prompt scores, and whether it was selected."""
    mark = "  <- selected" if row.selected else ""
    if row.selected and row.text:
        mark += f": {formatting.one_line(row.text, 100)}"
    return (
        f"{row.spent.queries:>5} queries  train loss {_number(row.train_loss)}  dev loss {_number(row.dev_loss)}"
        f"  dev {metric} {_number(row.dev_metric)}{mark}"
    )


def restart(row: RestartRow) -> str:
    """Return what became of the prompt, and by which losses on the feedback examples."""
    source_loss = next((text.loss for text in row.scored if text.source == "source_trial"), None)
    match row.adopted:
        case "proposal":
            new = next((text.loss for text in row.scored if text.text == row.text and text.source == "proposal"), None)
            to_beat = row.incumbent_loss if source_loss is None else source_loss
            return f'adopted "{formatting.one_line(row.text, _SHOWN)}" ({_compared(new, to_beat)})'
        case "source_trial":
            return f"took over {row.source_trial}'s prompt ({_compared(source_loss, row.incumbent_loss)})"
        case _:
            return f"kept its own prompt ({formatting.one_line(row.reason, 3 * _SHOWN) or 'none was proposed'})"


def stage(row: StageRow, metric: str) -> str:
    """Return how a stage has ended, and why."""
    steps = "" if row.kind == "restart" else f"{row.steps} steps, "
    return (
        f"stage {row.stage} ({row.kind}, {row.method}) ended after {steps}{row.paid.queries} queries, best dev {metric}"
        f" {_number(row.dev_metric)}: {formatting.one_line(row.reason, 3 * _SHOWN)}"
    )


def _compared(new: float | None, old: float | None) -> str:
    if new is None:
        return "not scored"
    if old is None:
        return f"feedback loss {new:.4g}"
    return f"feedback loss {new:.4g} {'<' if new < old else '>='} {old:.4g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
