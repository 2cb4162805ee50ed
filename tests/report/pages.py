"""A report as a browser reads it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

LOADS = {"src", "srcset", "href", "data", "action", "poster", "xlink:href"}


class Page(HTMLParser):
    """The page as a browser parses it: attributes that load something, text outside scripts, script bodies."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def figures(self) -> dict[str, Any]:
        """The figures as they are handed to plotly, by name."""
        found: dict[str, Any] = json.loads(
            next(script for script in self.scripts if script.startswith('{"loss-queries"'))
        )
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in LOADS]

    def handle_data(self, data: str) -> None:
        place = {"script": self.scripts, "style": self.styles}.get(self.lasttag if self.cdata_elem else "", self.words)
        place.append(data)
