"""The bench of other packages' optimizers, none of which is needed here: the counting server, a cell, the table."""

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from completions_server import CompletionsServer, answered
from openai import BadRequestError, OpenAI

from benchmarks.heads import TILE, task_of
from benchmarks.peers import cells
from benchmarks.peers.__main__ import line_of, problem_of
from benchmarks.peers.cells import Bench, Budget, Cell, read_cell, write_cell
from benchmarks.peers.job import (
    ALL,
    LAST,
    Shipped,
    cued_template,
    demonstrated,
    read_job,
    read_shipped,
    trials_of,
    write_job,
    write_shipped,
)
from benchmarks.peers.meter import CapReached, Caps, Meter, Spent
from benchmarks.peers.model import Relayed, ServedModel, continued, grouped
from benchmarks.peers.reading import accuracies, asked_of, shown_in, worded
from benchmarks.peers.server import CountingServer
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles import build
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.export import ExportedPrompt, write_peft
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Answer, Array, Example, Request, Text, TokenSpace

WORDS = (" terrible", " great")


class Opinion:
    """Finds great whatever holds "good", and has one thing to say."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def render(self, messages: Sequence[dict[str, Any]], chat_template: str | None) -> str:
        return ("" if chat_template else "chat: ") + "\n".join(message["content"] for message in messages)

    def tokens(self, prompt: str) -> int:
        return len(prompt.split())

    def choose(self, prompts: Sequence[str], words: Sequence[str]) -> Array:
        if any("too long" in prompt for prompt in prompts):
            raise ValueError("a prompt is too long")
        self.batches.append(len(prompts))
        return np.array([[0.0, 1.0 if "good" in prompt else -1.0] for prompt in prompts], np.float32)

    def write(self, prompt: str, max_tokens: int, temperature: float, seed: int | None) -> Answer:
        return Answer(f"written behind {prompt!r}", 3, 4)


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer(Opinion(), Meter(Caps(forwards=4, written=1, seconds=60)), "tiny") as started:
        yield started


def client_of(server: CountingServer) -> OpenAI:
    return OpenAI(base_url=server.url, api_key="none", max_retries=0)


def choice(text: str) -> dict[str, Any]:
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": text}],
        "extra_body": {"chat_template": LAST, "structured_outputs": {"choice": list(WORDS)}},
    }


# ------------------------------------------------------------------------------------------------ what is spent
def test_nothing_is_spent_beyond_a_cap_and_what_is_refused_costs_nothing() -> None:
    now = [0.0]
    meter = Meter(Caps(forwards=3, written=1, seconds=10), clock=lambda: now[0])
    meter.charge(Spent(requests=2, forwards=2, prompt_tokens=7))
    with pytest.raises(CapReached, match="forwards 3"):
        meter.charge(Spent(requests=2, forwards=2))
    meter.charge(Spent(requests=1, written=1))
    with pytest.raises(CapReached, match="proposals 1"):
        meter.charge(Spent(requests=1, written=1))
    now[0] = 11.0
    with pytest.raises(CapReached, match="seconds 10"):
        meter.charge(Spent(requests=1, forwards=1))
    assert meter.reached == "forwards", "the first that was"
    assert (meter.spent, meter.refused) == (Spent(requests=3, forwards=2, written=1, prompt_tokens=7), 3)


# ------------------------------------------------------------------------------------------------ the server
def test_a_choice_is_one_forward_with_its_probabilities(server: CountingServer) -> None:
    found = client_of(server).chat.completions.create(**choice("a good film"), logprobs=True)
    (chosen,) = found.choices[0].logprobs.content  # type: ignore[union-attr]
    assert (found.choices[0].message.content, chosen.token) == (" great", " great")
    assert sum(np.exp(top.logprob) for top in chosen.top_logprobs) == pytest.approx(1.0)
    assert server.meter.spent == Spent(requests=1, forwards=1, prompt_tokens=3, output_tokens=1)
    assert found.usage is not None and found.usage.total_tokens == 4


def test_completions_are_read_as_they_are(server: CountingServer) -> None:
    body = {"structured_outputs": {"choice": list(WORDS)}}
    found = client_of(server).completions.create(model="tiny", prompt="a dull film", logprobs=2, extra_body=body)
    assert found.choices[0].text == " terrible"
    assert set(found.choices[0].logprobs.top_logprobs[0]) == set(WORDS)  # type: ignore[union-attr,index]


def test_free_words_are_counted_and_capped_apart(server: CountingServer) -> None:
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "a new prompt"}]}
    client = client_of(server)
    assert client.chat.completions.create(**ask).choices[0].message.content == "written behind 'chat: a new prompt'"  # type: ignore[call-overload]
    with pytest.raises(BadRequestError, match="the cap is reached: proposals 1"):
        client.chat.completions.create(**ask)  # type: ignore[call-overload]
    assert client.models.list().data[0].id == "tiny"
    assert server.meter.spent == Spent(requests=1, written=1, prompt_tokens=4, output_tokens=4)


def test_a_burst_is_computed_together_up_to_the_cap(server: CountingServer) -> None:
    client, answers = client_of(server), list[str]()

    def ask(text: str) -> None:
        try:
            answers.append(str(client.chat.completions.create(**choice(text)).choices[0].message.content))
        except BadRequestError:
            answers.append("refused")

    asking = [threading.Thread(target=ask, args=(f"a good film {i}",)) for i in range(7)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(answers) == [" great"] * 4 + ["refused"] * 3
    assert server.meter.refused == 3 and server.meter.spent.forwards == 4


def test_a_prompt_that_fails_costs_none_of_the_others_their_answers() -> None:
    from concurrent.futures import Future

    from benchmarks.peers.server import Engine, Reply, Task

    engine = Engine(Opinion(), Meter(Caps(9, 9, 60)))
    futures = [
        engine.ask(Task(text, WORDS, 1, 0.0, None, Future[Reply]())) for text in ("good", "too long", "not so well")
    ]
    engine.close()
    assert [future.result().text for future in (futures[0], futures[2])] == [" great", " terrible"]
    with pytest.raises(ValueError, match="too long"):
        futures[1].result()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"messages": []}, "needs messages"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": True}, "leave out stream"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 2}, "leave out stream and n"),
        ({"messages": [{"role": "user", "content": ""}], "chat_template": LAST}, "not empty"),
    ],
)
def test_what_it_does_not_do_is_refused(server: CountingServer, body: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequestError, match=told):
        client_of(server).post("/chat/completions", body=body, cast_to=object)
    assert server.meter.spent == Spent()


# ------------------------------------------------------------------------------------------------ the model
def test_prompts_that_share_lines_are_computed_together() -> None:
    prompts = ["Classify.\ngood", "Say it again, at length.\nbad", "Classify.\nbad", "Classify.\ngood"]
    assert grouped(prompts) == [("Classify.", [2, 0, 3]), ("Say it again, at length.", [1])]
    assert grouped(["no line"]) == [("", [0])]
    assert grouped(["Input:\na\nOutput:\n"]) == [("Input:\na", [0])], "a rest is never empty"


def test_words_have_no_space_of_their_own_behind_white_space() -> None:
    assert continued("It was", WORDS) == WORDS
    assert continued("Output:\n", WORDS) == ("terrible", "great")


@pytest.fixture(scope="module")
def oracle(tiny_llama: Path) -> tuple[TiledOracle, TransformersOracleConfig]:
    config = TransformersOracleConfig(kind="transformers", model=str(tiny_llama), dtype="float32", threads=1)
    return TiledOracle(build(config), TILE), config


@pytest.fixture(scope="module")
def task(oracle: tuple[TiledOracle, TransformersOracleConfig]) -> Task:
    """Return a task of the tiny model's own words."""
    found = task_of("demo", Path(), 0, 8)
    words = codec_of(oracle[0]).vocabulary(TokenSpace("words"))[:2]

    def cut(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(replace(example, label=i % 2) for i, example in enumerate(examples[:8]))

    return replace(
        found, label_words=words, label_names=words, train=cut(found.train), dev=cut(found.dev), test=cut(found.test)
    )


@pytest.mark.model
def test_the_server_scores_a_prompt_as_the_oracle_reads_it(
    oracle: tuple[TiledOracle, TransformersOracleConfig], task: Task
) -> None:
    speaker = ServedModel(*oracle)
    prompt = "Sort the message.\n\nRead it first."
    message = [f"{prompt}\n{example.text}{example.cue}" for example in task.test]
    read = [speaker.render([{"role": "user", "content": text}], LAST) for text in message]
    assert read == message
    batch = task.batch("test")
    expected = oracle[0].evaluate(Request((Text(prompt),), batch, NO_ROWS)).logits[0]
    np.testing.assert_allclose(speaker.choose(read, task.label_words), expected, atol=1e-4)


@pytest.mark.model
def test_the_model_writes_the_same_in_any_order(oracle: tuple[TiledOracle, TransformersOracleConfig]) -> None:
    one, other = ServedModel(*oracle), ServedModel(*oracle)
    first = [one.write(prompt, 5, 1.0, None).text for prompt in ("the film", "a story", "the film")]
    second = [other.write(prompt, 5, 1.0, None).text for prompt in ("a story", "the film", "the film")]
    assert first == [second[1], second[0], second[2]]
    assert first[0] != first[2], "asked again it is drawn anew"


@pytest.mark.model
def test_chat_templates_of_a_request_are_what_the_model_reads(
    oracle: tuple[TiledOracle, TransformersOracleConfig],
) -> None:
    speaker = ServedModel(*oracle)
    messages = [{"role": "system", "content": "Sort."}, {"role": "user", "content": 'Say "x"'}]
    assert speaker.render(messages, ALL) == 'Sort.\nSay "x"'
    template = cued_template(' It was "', "\nOutput:\n")
    assert speaker.render(messages, template) == 'Say "x" It was "'
    assert speaker.render([{"role": "user", "content": "a\nOutput:\nb"}], template) == "a\nOutput:\nb\nOutput:\n"


def test_proposals_can_be_another_server_s_and_are_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    far = CompletionsServer()
    far.answer = lambda asked: answered(asked, None, "a better prompt")
    far.start()
    try:
        with CountingServer(Relayed(Opinion(), far.url, "far"), Meter(Caps(9, 9, 60)), "tiny") as server:
            messages = [{"role": "system", "content": "Help."}, {"role": "user", "content": "Write."}]
            found = client_of(server).chat.completions.create(model="tiny", messages=messages)  # type: ignore[arg-type]
            assert client_of(server).chat.completions.create(**choice("good")).choices[0].message.content == " great"
    finally:
        far.stop()
    assert found.choices[0].message.content == "a better prompt"
    (asked,) = far.asked
    assert (asked.prompt, asked.body["model"], asked.key) == ("Help.\n\nWrite.", "far", "Bearer sk-of-a-test")
    assert (server.meter.spent.written, server.meter.spent.forwards) == (1, 1)


# ------------------------------------------------------------------------------------------------ cells
FAKE_PEER = """
import json, sys, urllib.request
job = json.load(open(sys.argv[1]))
answers = []
for row in job["dev"]:
    body = {"messages": [{"role": "user", "content": row["text"]}], "chat_template": "x",
            "structured_outputs": {"choice": job["label_words"]}}
    request = urllib.request.Request(job["url"] + "/chat/completions", json.dumps(body).encode())
    try:
        answers.append(json.load(urllib.request.urlopen(request))["usage"]["total_tokens"])
    except urllib.error.HTTPError as error:
        answers.append(error.code)
print("thinking")
if "fail" in job["instructions"][0]:
    raise SystemExit("no idea")
shipped = {"words": job["instructions"][1], "adapter": None, "cue": None, "label_words": None, "ended": "of itself",
           "told": {"answers": answers}}
json.dump(shipped, open(sys.argv[2], "w"))
"""


@pytest.fixture
def bench(
    oracle: tuple[TiledOracle, TransformersOracleConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    script = tmp_path / "fake_peer.py"
    script.write_text(FAKE_PEER)
    monkeypatch.setattr(cells, "command_of", lambda peer, python: [python, str(script)])
    return Bench(oracle[0], Opinion(), "", Budget(1, 5, 60.0, 8), sys.executable)


@pytest.mark.model
def test_a_cell_is_what_a_peer_ships_read_twice_and_what_it_spent(bench: Bench, task: Task, tmp_path: Path) -> None:
    short = replace(task, train=task.train[:6])
    cell = bench.cell("gepa", short, 0, tmp_path / "cell")
    assert cell.spent.forwards == 6 and cell.refused == 2, "the cap is one query of train"
    assert cell.told["answers"][-2:] == [400, 400]
    assert (cell.ended, cell.test_rows) == ("of itself", 8)
    assert cell.words is not None and cell.words != task.manual_prompt
    assert cell.own is not None and cell.head is not None
    write_cell(cell, tmp_path / "cell.json")
    assert read_cell(tmp_path / "cell.json") == cell
    assert "thinking" in (tmp_path / "cell" / "log.txt").read_text()


@pytest.mark.model
def test_a_peer_that_fails_leaves_its_reason(bench: Bench, task: Task, tmp_path: Path) -> None:
    cell = bench.cell("capo", replace(task, manual_prompt="fail"), 0, tmp_path / "cell")
    assert (cell.own, cell.head, cell.words) == (None, None, None)
    assert cell.ended == "it failed with exit status 1: no idea"
    assert cell.spent.forwards == 8
    assert line_of(cell)[-2:] == ["-", "-"]


@pytest.mark.model
def test_the_untuned_prompt_is_read_like_any_other(bench: Bench, task: Task, tmp_path: Path) -> None:
    cell = bench.cell("untuned", task, 0, tmp_path / "cell")
    assert (cell.own, cell.head) == accuracies(task, Shipped(task.manual_prompt), bench.oracle)
    assert (cell.spent, cell.queries, cell.words) == (Spent(), 0, task.manual_prompt)


@pytest.mark.model
def test_rows_of_an_adapter_are_read_in_front_of_the_text(
    oracle: tuple[TiledOracle, TransformersOracleConfig], task: Task, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).standard_normal((4, oracle[0].info.width)).astype(np.float32)
    write_peft(ExportedPrompt(rows, "prefix", "tiny", "peft", "adamw", [], {}, {}), tmp_path)
    shipped = Shipped(adapter=str(tmp_path))
    candidate, spec = asked_of(shipped)
    np.testing.assert_array_equal(codec_of(oracle[0]).materialize(candidate, spec), rows)
    assert all(0 <= accuracy <= 1 for accuracy in accuracies(task, shipped, oracle[0]))


def test_rows_that_stand_in_a_prompt_are_told_and_a_peer_s_own_cue_is_the_task_s() -> None:
    task = task_of("demo", Path(), 0, 8)
    words = f"Sort it.\n\nInput:\n{task.train[3].text}\nOutput:\nbilling"
    shipped = Shipped(words, cue="\nOutput:\n", label_words=("billing", "shipping", "technical", "account"))
    assert shown_in(task, shipped) == (3,)
    cued = worded(task, shipped)
    assert {e.cue for e in (*cued.train, *cued.dev, *cued.test)} == {"\nOutput:\n"}
    assert (cued.label_words[0], cued.label_rule) == ("billing", "first")
    assert worded(task, Shipped(words)) is task


# ------------------------------------------------------------------------------------------------ jobs, the table
def test_a_job_and_its_answer_come_back_as_they_went(bench: Bench, task: Task, tmp_path: Path) -> None:
    job = bench.job(task, "http://127.0.0.1:1/v1", tmp_path)
    write_job(job, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == job
    assert (job.instruction, job.forwards) == (task.manual_prompt, len(task.train))
    assert {row.answer for row in job.train} == {word.strip() for word in task.label_words}
    shipped = Shipped("words", cue="\n", label_words=("a", "b"), ended="seconds", told={"steps": 3})
    write_shipped(shipped, tmp_path / "shipped.json")
    assert read_shipped(tmp_path / "shipped.json") == shipped
    assert trials_of(replace(job, forwards=100), candidates=2) == (100 - 16) // 8 - 1
    assert trials_of(replace(job, forwards=1), candidates=2) == 1


def test_demonstrations_stand_in_the_task_s_template() -> None:
    demos = [{"text": "fine It was", "label": "great"}, {"text": "dull It was", "label": " terrible"}]
    words = {word.strip(): word for word in WORDS}
    assert demonstrated("Sort.", demos, words) == "Sort.\n\nfine It was great\n\ndull It was terrible\n"
    assert demonstrated("Sort.", [], words) == "Sort."


def test_a_line_tells_what_was_spent_and_both_readings() -> None:
    spent = Spent(requests=1300, forwards=1280, written=20, prompt_tokens=70_000, output_tokens=2_000)
    cell = Cell("sst2", 0, "gepa", 40, 0.7, 0.8, 100, spent, 61.4, "proposals")
    assert line_of(cell) == [
        *("sst2", "0", "gepa", "1,280", "20", "70,000", "2,000", "61", "proposals"),
        *("0.700 (0.604-0.781)", "0.800 (0.711-0.867)"),
    ]


@pytest.mark.parametrize(
    ("peers", "proposer", "told"),
    [
        (["gepa"], ("", ""), "requirements.txt"),
        (["opro"], ("", ""), "'opro' was asked for"),
        (["peft"], ("http://127.0.0.1:1/v1", ""), "go together"),
        (["untuned", "peft"], ("", ""), ""),
    ],
)
def test_options_that_cannot_work_are_told(peers: list[str], proposer: tuple[str, str], told: str) -> None:
    problem = problem_of(peers, Path("nowhere/python"), *proposer)
    assert told in problem and bool(problem) == bool(told)


def test_the_peers_requirements_are_pinned() -> None:
    lines = (cells.ROOT / "benchmarks/peers/requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all("==" in pin for pin in pins) and len(pins) >= 3
