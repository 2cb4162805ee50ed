"""CSV and TSV as people have them: read as they stand, or refused with the row and what was found."""

from pathlib import Path

import pytest

from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.reading import read
from distributed_tuner.tasks.table import Table

HEAD = "text,label\n"


def table(folder: Path, content: str, name: str = "some.csv") -> Table:
    (folder / name).write_bytes(content.encode())
    return read(name, folder)


def cells(folder: Path, content: str, name: str = "some.csv") -> list[list[str]]:
    made = table(folder, content, name)
    return [[made.rows[i][column] for column in made.columns] for i in range(len(made))]


def refused(folder: Path, content: str, name: str = "some.csv") -> str:
    with pytest.raises(TaskError) as caught:
        table(folder, content, name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("Honestly, the soup was warm,1", "row 2 (line 3) has 3 fields, but the header names 2, and no column is left"),
        ("a film,1,,note", "no column is left for 'note'"),
        ("a film", "row 2 (line 3) has 1 field, but the header names 2, and none is left for 'label'"),
        ('"a film" he said,1', "row 2 (line 3) cannot be read"),
        ('"a film,1', "row 2 (line 3) cannot be read (unexpected end of data)"),
    ],
)
def test_a_row_that_does_not_fit_its_header_is_refused(tmp_path: Path, row: str, found: str) -> None:
    message = refused(tmp_path, f"{HEAD}fine,0\n{row}\n")
    assert message.startswith("some.csv, ") and found in message and "quotation marks" in message


@pytest.mark.parametrize(
    "content",
    [
        "text,label\na,1,\nb,0,,\n",  # separators at the ends of lines
        "text,label,,\na,1,,\nb,0,,\n",
        "\ufefftext,label\r\na,1\rb,0\n",  # a mark at the beginning, all three line ends
        "text,label\n\na,1\n\n\nb,0\n\n",
        "sep=;\r\ntext;label\r\na;1\r\nb;0\r\n",
        '"text","label"\n"a","1"\n"b","0"',
    ],
)
def test_the_same_table_in_many_hands(tmp_path: Path, content: str) -> None:
    assert table(tmp_path, content).columns == ("text", "label")
    assert cells(tmp_path, content) == [["a", "1"], ["b", "0"]]


def test_words_that_others_take_for_nothing_are_words(tmp_path: Path) -> None:
    words = ["NA", "null", "None", "nan", "N/A", "-", "007", "1e5", "True"]
    assert cells(tmp_path, HEAD + "".join(f"{word},{word}\n" for word in words)) == [[word, word] for word in words]


def test_places_count_rows_and_name_the_line_where_each_begins(tmp_path: Path) -> None:
    made = table(tmp_path, HEAD + '"one\ntwo\n",1\n\n"a ""b""",0\n')
    assert made.rows[0]["text"] == "one\ntwo\n" and made.rows[1]["text"] == 'a "b"'
    assert [made.where(i) for i in range(2)] == ["some.csv, row 1 (line 2)", "some.csv, row 2 (line 6)"]


def test_a_very_long_cell(tmp_path: Path) -> None:
    long = "word " * 100_000
    assert cells(tmp_path, f"{HEAD}{long},1\n") == [[long, "1"]]


@pytest.mark.parametrize(
    ("name", "content", "seen", "remedy"),
    [
        ("a.csv", 'text;label\n"one, two";1\n', "semicolons (';')", "sep=;"),
        ("a.csv", "text\tlabel\nx\t1\n", "tabs", "name it .tsv"),
        ("a.csv", "text|label\nx|1\n", "bars ('|')", "commas"),
        ("a.tsv", "text,label\nx,1\n", "commas", "name it .csv"),
    ],
)
def test_another_separator_is_named(tmp_path: Path, name: str, content: str, seen: str, remedy: str) -> None:
    message = refused(tmp_path, content, name)
    assert name in message and seen in message and remedy in message


def test_columns_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    assert "number 1 and number 3 are both 'text'" in refused(tmp_path, "text,label,text\na,1,b\n")
    assert "has no header" in refused(tmp_path, ",,\na,1,2\n")


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        # as published sets have them: marks are text, matched or not
        (['"Great" film\t1', '5" screen\t0'], ['"Great" film', '5" screen']),
        (['"Great film\t1', "so so\t0", 'bad"\t0'], ['"Great film', "so so", 'bad"']),
        (['"Great film"\t1'], ['"Great film"']),
        # as programs write them: around what holds marks or line breaks, and doubled inside
        (['"say ""hi"""\t1', "fine\t0"], ['say "hi"', "fine"]),
        (['"two\nlines"\t1', "fine\t0"], ["two\nlines", "fine"]),
        (['"a\ttab"\t1'], ["a\ttab"]),
    ],
)
def test_quotation_marks_in_tsv_are_text_unless_a_writer_put_them(
    tmp_path: Path, lines: list[str], texts: list[str]
) -> None:
    rows = cells(tmp_path, "text\tlabel\n" + "".join(line + "\n" for line in lines), "some.tsv")
    assert [row[0] for row in rows] == texts


def test_a_tsv_that_is_quoted_throughout(tmp_path: Path) -> None:
    assert cells(tmp_path, '"text"\t"label"\n"a"\t"1"\n', "some.tsv") == [["a", "1"]]


def test_a_tab_too_many_is_refused_where_it_stands(tmp_path: Path) -> None:
    for end in ("", 'so so"\t0\n'):  # the second mark has nothing to do with the first
        message = refused(tmp_path, f'text\tlabel\n"fine\t0\nhe\tsaid\t1\n{end}', "some.tsv")
        assert "some.tsv, row 2 (line 3) has 3 fields" in message
