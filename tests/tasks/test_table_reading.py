"""JSONL, Parquet, and files that are something else than their name says."""

import datetime
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distributed_tuner.config.task import label_key
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.cells import in_csv, in_json
from distributed_tuner.tasks.reading import read
from distributed_tuner.tasks.table import Table


def written(folder: Path, content: bytes | str, name: str = "some.jsonl") -> Table:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read(name, folder)


def parquet(folder: Path, **columns: Any) -> Table:
    pq.write_table(pa.table(columns), folder / "some.parquet")
    return read("some.parquet", folder)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"text": "a", "label": 1, "text": "b"}', "has the key 'text' twice"),
        ('{"text": "a", "label": %s}' % ("1" * 5000), "cannot be read (Exceeds the limit"),
        ('{"text": %s}' % ("[" * 100_000), "cannot be read (maximum recursion depth"),
        ('{"text": "a" "label": 1}', "is not JSON"),
        ('"a"', "holds a JSON str"),
    ],
)
def test_a_line_that_is_no_row_is_refused(tmp_path: Path, line: str, found: str) -> None:
    with pytest.raises(TaskError, match=r"some\.jsonl, line 3 ") as caught:
        written(tmp_path, f'{{"text": "a"}}\n\n{line}\n')
    assert found in str(caught.value)


def test_lines_end_where_json_says_and_files_may_have_been_joined(tmp_path: Path) -> None:
    lines = ['{"text": "a\u2028b"}', '\ufeff{"text": "c\u0085d"}']
    made = written(tmp_path, "\r\n".join(lines))
    assert [made.texts(i, ["text"])["text"] for i in range(2)] == ["a\u2028b", "c\u0085d"]


@pytest.mark.parametrize(
    ("number", "text", "label"),
    [("1.10", "1.10", "1.10"), ("1.0", "1.0", "1"), ("1e400", "1e400", "1e400"), ("9007199254740993",) * 3],
)
def test_a_number_is_the_text_that_stands_in_the_file(tmp_path: Path, number: str, text: str, label: str) -> None:
    made = written(tmp_path, f'{{"text": {number}}}\n')
    assert made.texts(0, ["text"])["text"] == text
    assert label_key(made.rows[0]["text"]) == label


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv", gzip.compress(b"text,label\n", mtime=0), "packed by gzip: unpack it"),
        ("a.jsonl", b"PK\x03\x04\x90\xff", "ZIP archive, as workbooks of Excel are"),
        ("a.csv", "text,label\n".encode("utf-16"), "UTF-16 or UTF-32: save it as UTF-8"),
        ("a.csv", "text,label\n".encode("utf-16-le"), "NUL characters in its first line, as UTF-16 has"),
        ("a.csv", "text\nfine\ncaf\u00e9\n".encode("cp1252"), "at byte 13, line 3): save it as UTF-8"),
        ("a.csv.gz", b"", "'.gz' in 'a.csv.gz': unpack it"),
        ("a.json", b"[]", "one object a line"),
        ("a.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_file_that_is_something_else_is_told_what(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    with pytest.raises(TaskError) as caught:
        written(tmp_path, content, name)
    assert name in str(caught.value) and found in str(caught.value)


def test_a_folder_and_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(TaskError, match="is a folder"):
        read("a.csv", tmp_path)

    def denied(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "b.csv").touch()
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(TaskError, match=r"b\.csv cannot be read \(Permission denied\)"):
        read("b.csv", tmp_path)


def test_parquet_keeps_what_pandas_would_round_or_hide(tmp_path: Path) -> None:
    made = parquet(
        tmp_path, id=[2**53 + 1, None], label=pa.array(["a", "b"]).dictionary_encode(), __index_level_0__=[1, 2]
    )
    assert made.columns == ("id", "label")
    assert [made.rows[i] for i in range(2)] == [{"id": 2**53 + 1, "label": "a"}, {"id": None, "label": "b"}]
    both = pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"])
    pq.write_table(both, tmp_path / "twice.parquet")
    with pytest.raises(TaskError, match="both 'text': rename one"):
        read("twice.parquet", tmp_path)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([True, False], ["true", "false"]),
        ([Decimal("1.00"), Decimal("2.50")], ["1", "2.50"]),
        ([datetime.date(2024, 1, 2)], ["2024-01-02"]),
        ([["a", "b"]], ['["a", "b"]']),
        ([-0.0, 1e22], ["0", "10000000000000000000000"]),
        (pa.array([0.1, 2.0], pa.float32()), ["0.1", "2"]),
    ],
)
def test_labels_of_parquet(tmp_path: Path, values: list[Any], labels: list[str]) -> None:
    index = {label: i for i, label in enumerate(labels)}
    assert parquet(tmp_path, label=values).labels("label", index.get, labels) == list(range(len(labels)))


def test_bytes_are_neither_text_nor_label(tmp_path: Path) -> None:
    made = parquet(tmp_path, text=[b"a"], label=[b"0"])
    with pytest.raises(TaskError, match=r"some\.parquet, row 1 it holds bytes"):
        made.texts(0, ["text"])
    with pytest.raises(TaskError, match=r"some\.parquet, row 1 must be text or a number, but is bytes"):
        made.labels("label", {"0": 0}.get, ["0"])


def test_cells_for_files_of_text() -> None:
    assert [in_csv(cell) for cell in (["a", b"b"], {"a": 1}, b"ab", None, "x")] == [
        '["a", "Yg=="]',
        '{"a": 1}',
        "YWI=",
        None,
        "x",
    ]
    assert json.dumps({"a": Decimal("1.50"), "b": b"ab"}, default=in_json) == '{"a": "1.50", "b": "YWI="}'
