import threading
from pathlib import Path

import pytest

from distributed_tuner.errors import LedgerError
from distributed_tuner.ledger import (
    CostRow,
    EvalRow,
    EventRow,
    ExchangeRow,
    FeedbackRow,
    LedgerWriter,
    MeasureRow,
    RestartRow,
    Row,
    RunEndRow,
    RunRow,
    ScoredText,
    StepRow,
    TrialEndRow,
    TrialRow,
    frames,
    read,
)


def run(time: float, resumed: bool = False) -> RunRow:
    return RunRow(time=time, name="r", version="1", seed=0, methods=["zot"], resumed=resumed)


def step(number: int, loss: float = 0.5, trial: str = "a", time: float = 1.0) -> StepRow:
    cost = CostRow(queries=2, seconds=1.5)
    spent = CostRow(queries=2 * number)
    return StepRow(
        time=time,
        trial_id=trial,
        stage=0,
        step=number,
        loss=loss,
        best_loss=loss,
        failed=0,
        cost=cost,
        spent=spent,
        elapsed=1,
        metrics={"rate": 0.1},
    )


def event(message: str) -> EventRow:
    return EventRow(time=1.0, kind="warning", message=message)


def wrote(path: Path, *rows: Row) -> Path:
    with LedgerWriter(path) as writer:
        for row in rows:
            writer.write(row)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


# --------------------------------------------------------------------------------------------------- writing
def test_rows_can_be_read_while_the_writer_is_open(path: Path) -> None:
    with LedgerWriter(path) as writer:
        writer.write(event("one"))
        assert [row.message for row in read(path).events] == ["one"]


def test_opening_again_appends(path: Path) -> None:
    wrote(path, event("one"))
    wrote(path, event("two"))
    assert [row.message for row in read(path).events] == ["one", "two"]


@pytest.mark.parametrize(
    "tail", [b'{"type": "event", "ti', b"\x00\x00\x00", '{"type":"event","message":"é'.encode()[:-1]]
)
def test_a_torn_tail_is_forgiven_by_the_reader_and_cut_off_by_the_writer(
    path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    whole = wrote(path, event("one")).read_bytes()
    path.write_bytes(whole + tail)
    assert len(read(path).events) == 1
    assert "line 2 is torn" in caplog.text
    caplog.clear()
    wrote(path, event("two"))
    assert path.read_bytes().startswith(whole + b"{")
    assert [row.message for row in read(path).events] == ["one", "two"]
    assert caplog.text == ""


def test_a_whole_row_that_lacks_only_its_newline_is_kept(path: Path) -> None:
    path.write_bytes(wrote(path, event("one")).read_bytes().rstrip(b"\n"))
    assert len(read(path).events) == 1
    wrote(path, event("two"))
    assert [row.message for row in read(path).events] == ["one", "two"]


def test_a_torn_tail_longer_than_the_reading_chunk_is_cut_off(path: Path) -> None:
    whole = wrote(path, event("one")).read_bytes()
    path.write_bytes(whole + b'{"message": "' + b"x" * 200_000)
    wrote(path, event("two"))
    assert [row.message for row in read(path).events] == ["one", "two"]
    assert path.read_bytes().startswith(whole)


def test_a_file_that_is_one_torn_line_starts_afresh(path: Path) -> None:
    path.write_bytes(b'{"type": "ru')
    wrote(path, event("one"))
    assert [row.message for row in read(path).events] == ["one"]


def test_threads_do_not_mix_their_lines(path: Path) -> None:
    with LedgerWriter(path, sync_every=1000) as writer:

        def work(name: str) -> None:
            for number in range(50):
                writer.write(event(f"{name}{number}" * 50))

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({row.message for row in read(path).events}) == 200


def test_a_closed_writer_takes_no_rows(path: Path) -> None:
    writer = LedgerWriter(path)
    writer.close()
    writer.close()
    with pytest.raises(LedgerError, match="closed ledger takes no rows, got a 'event' row"):
        writer.write(event("late"))


def test_a_missing_folder_and_a_bad_interval_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="existing folder"):
        LedgerWriter(tmp_path / "none" / "ledger.jsonl")
    with pytest.raises(LedgerError, match="at least 1, got 0"):
        LedgerWriter(tmp_path / "ledger.jsonl", sync_every=0)


# --------------------------------------------------------------------------------------------------- reading
@pytest.mark.parametrize(
    "line", [b"not json\n", b"\n", b'{"type":"planet"}\n', b'{"type":"event","time":1,"kind":"x"}\n']
)
def test_a_malformed_line_names_its_number(path: Path, line: bytes) -> None:
    whole = wrote(path, event("one")).read_bytes()
    path.write_bytes(whole + line + whole)
    with pytest.raises(LedgerError, match="line 2 of"):
        read(path)


def test_a_malformed_last_line_with_a_newline_was_not_torn_and_is_refused(path: Path) -> None:
    path.write_bytes(wrote(path, event("one")).read_bytes() + b'{"type":"planet"}\n')
    with pytest.raises(LedgerError, match="line 2 of"):
        read(path)


def test_a_missing_file_is_refused_and_an_empty_one_is_an_empty_ledger(path: Path) -> None:
    with pytest.raises(LedgerError, match="found none at"):
        read(path)
    path.touch()
    ledger = read(path)
    assert ledger.steps == () and ledger.sessions == () and ledger.end is None


def test_replayed_rows_stand_once_in_their_latest_version_and_first_place(path: Path) -> None:
    evaluation = EvalRow(
        trial_id="a",
        stage=0,
        step=2,
        train_loss=0.4,
        dev_loss=0.5,
        dev_metric=0.7,
        selected=True,
        cost=CostRow(),
        spent=CostRow(),
        elapsed=1,
    )
    start = TrialRow(trial_id="a", method="zot", seed=0, split_seed=0, drawn={})
    test = MeasureRow(trial_id="a", what="selected", split="test", split_seed=0, loss=1, metric=0.5, cost=CostRow())
    wrote(path, start, step(1), step(2), evaluation, step(3), step(2, trial="b"), test)
    wrote(
        path,
        start.model_copy(update={"attempt": 1}),
        step(2, loss=0.3),
        evaluation.model_copy(update={"dev_metric": 0.8}),
    )
    wrote(
        path, test.model_copy(update={"metric": 0.6}), test.model_copy(update={"split_seed": 1}), event("x"), event("x")
    )
    ledger = read(path)
    assert [(row.trial_id, row.step, row.loss) for row in ledger.steps] == [
        ("a", 1, 0.5),
        ("a", 2, 0.3),
        ("a", 3, 0.5),
        ("b", 2, 0.5),
    ]
    assert [row.dev_metric for row in ledger.evaluations] == [0.8]
    assert [(row.split_seed, row.metric) for row in ledger.measures] == [(0, 0.6), (1, 0.5)]
    assert [row.attempt for row in ledger.trials] == [1]
    assert len(ledger.events) == 2


def test_the_latest_end_of_a_trial_counts(path: Path) -> None:
    first = TrialEndRow(trial_id="a", status="interrupted", reason="", wall_seconds=1)
    wrote(path, first, first.model_copy(update={"status": "done", "wall_seconds": 3.0}))
    assert [(row.status, row.wall_seconds) for row in read(path).trial_ends] == [("done", 3.0)]


def test_a_resumed_run_has_sessions_each_with_its_own_clock(path: Path) -> None:
    end = RunEndRow(
        time=260.0,
        status="done",
        wall_seconds=59.0,
        oracle_busy_seconds=40.0,
        oracle_actors=2,
        tiles=5,
        retries=0,
    )
    wrote(path, run(100.0), step(1, time=110.0), step(2, time=130.0), run(200.0, True), step(2, time=210.0), end)
    first, second = read(path).sessions
    assert (first.end, first.wall_seconds, first.oracle_busy_seconds) == (None, 30.0, 3.0)
    assert (second.end, second.wall_seconds, second.oracle_busy_seconds) == (end, 59.0, 40.0)
    assert second.run is not None and second.run.resumed and read(path).end == end


def test_frames_have_a_column_for_each_nested_value(path: Path) -> None:
    start = TrialRow(trial_id="a", method="zot", seed=0, split_seed=0, drawn={"x": 1})
    tables = frames(read(wrote(path, run(1.0), start, step(1), step(2))))
    assert tables["steps"]["spent.queries"].tolist() == [2, 4]
    assert tables["steps"]["metrics.rate"].tolist() == [0.1, 0.1]
    assert tables["trials"]["drawn"].tolist() == [{"x": 1}]
    assert len(tables["runs"]) == 1 and tables["run_ends"].empty


def test_scored_texts_have_a_frame_of_their_own(path: Path) -> None:
    def text(words: str, loss: float, source: str = "proposal") -> ScoredText:
        return ScoredText.model_validate({"text": words, "source": source, "loss": loss, "metric": 0.5})

    paid = {"cost": CostRow(queries=1), "spent": CostRow(queries=9), "elapsed": 1.0}
    feedback = FeedbackRow(trial_id="a", stage=1, texts=[text("x", 1.5, "trajectory")], **paid)
    asked = ExchangeRow(trial_id="a", stage=1, number=0, proposer="p", instruction="i", answer="y\nz", texts=["y", "z"])
    won = RestartRow(
        trial_id="a",
        stage=1,
        incumbent_loss=1.4,
        scored=[text("", 1.3, "source_trial"), text("y", 1.6), text("z", 1.2)],
        adopted="proposal",
        text="z",
        source_trial="b",
        settings={"stages.0.optimizer.sigma": 0.2},
        **paid,
    )
    took = won.model_copy(
        update={"stage": 3, "scored": [text("", 1.1, "source_trial")], "adopted": "source_trial", "text": ""}
    )
    tables = frames(read(wrote(path, run(1.0), feedback, asked, won, took)))
    texts = tables["texts"]
    assert list(texts) == ["trial_id", "stage", "source", "text", "loss", "metric", "adopted"]
    assert list(zip(texts.stage, texts.source, texts.text, texts.loss, texts.adopted, strict=True)) == [
        (1, "trajectory", "x", 1.5, False),
        (1, "source_trial", "", 1.3, False),
        (1, "proposal", "y", 1.6, False),
        (1, "proposal", "z", 1.2, True),
        (3, "source_trial", "", 1.1, True),
    ]
    assert "texts" not in tables["feedbacks"] and "scored" not in tables["restarts"]
    assert tables["restarts"]["settings.stages.0.optimizer.sigma"].tolist() == [0.2, 0.2]
    assert tables["restarts"]["incumbent_loss"].tolist() == [1.4, 1.4]
    assert tables["exchanges"]["texts"].tolist() == [["y", "z"]]


def test_a_ledger_without_restarts_has_an_empty_frame_of_texts(path: Path) -> None:
    texts = frames(read(wrote(path, run(1.0), step(1))))["texts"]
    assert texts.empty and "adopted" in texts
