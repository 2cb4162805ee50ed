"""One run as it is watched: its ledger as far as it has grown, its settings, its heartbeat, and whether it lives."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from distributed_tuner.errors import LedgerError, TunerError
from distributed_tuner.ledger.follower import Follower
from distributed_tuner.ledger.rows import ROW, RunEndRow
from distributed_tuner.report.summary import summarize
from distributed_tuner.runs import heartbeat
from distributed_tuner.runs.heartbeat import Beat
from distributed_tuner.runs.recorded_config import Recorded
from distributed_tuner.shown import plain
from distributed_tuner.storage.json_files import M, read_bytes_told
from distributed_tuner.watch.listed import Listed
from distributed_tuner.watch.places import WatchedPlace
from distributed_tuner.watch.story import Story

State: TypeAlias = Literal["starting", "running", "done", "stopped", "failed", "silent"]
"""stopped: interrupted, so that it can be resumed. silent: not ended, and nothing heard of it for a while."""
SILENT_SECONDS = 60.0
"""Without a heartbeat after which a run is called silent."""
SILENT_SECONDS_OF_LEDGER = 600.0
"""Likewise of runs of older versions, which have none: since the last row."""
CONFIG_SECONDS = 30.0  # between two looks at config.json, which changes seldom
TAIL = 1 << 16  # bytes in which a run's last row is looked for
_ENDED: Mapping[str, State] = {"done": "done", "interrupted": "stopped", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A run at one moment, for the views.

    summary: as in ``summary.json``. story, summary: None and empty for a run that has ended, of which ``listed`` was
    read alone.
    share: of the ledger that is read. quiet: seconds since something was heard of it; None if that is not known.
    problem: why something cannot be read; empty where all can.
    """

    run: str
    address: str
    state: State
    config: Recorded
    listed: Listed
    summary: Mapping[str, Any] = field(default_factory=dict)
    story: Story | None = None
    beat: Beat | None = None
    share: float = 1.0
    quiet: float | None = None
    problem: str = ""


@dataclass
class WatchedRun:
    """Looks at a run. Threads take turns. clock: unix seconds."""

    place: WatchedPlace
    run: str
    clock: Callable[[], float] = time.time
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: Seen | None = None
    _next_look: float = 0.0
    _next_config: float = 0.0
    _ended_at: int | None = None  # the bytes of a ledger whose summary is used
    _refused_at: int | None = None  # the bytes of a ledger that cannot be read
    _config: Recorded = field(default_factory=Recorded)
    _summary: Mapping[str, Any] = field(default_factory=dict)
    _listed: Listed = field(default_factory=lambda: Listed(status="unfinished"))
    _position: int = -1
    _beat: Beat | None = None
    _beat_heard: float | None = None  # by this process's monotonic clock
    _problem: str = ""
    _refusal: str = ""

    def __post_init__(self) -> None:
        self._file = self.place.ledger(self.run)
        self._story: Story = Story()
        self._follower = Follower(self._file, self._begin)

    def look(self, seconds: float, *, whole: bool) -> Seen:
        """Read on for about so many seconds at most, and return what there is to see.

        whole: everything, also of a run that has ended, whose summary is enough for a list.
        """
        with self._lock:
            now = time.monotonic()
            lacks = whole and self._seen is not None and self._seen.story is None
            if self._seen is None or lacks or now >= self._next_look or self._follower.share < 1:
                try:
                    self._seen = self._look(seconds, whole)
                except OSError as error:
                    self._seen = self._troubled(f"it cannot be read at the moment: {error}")
                self._next_look = time.monotonic() + self.place.look_seconds
            return self._seen

    @property
    def position(self) -> int:
        """Bytes of the ledger that are read."""
        return self._follower.position

    # ------------------------------------------------------------------------------------------------ parts
    def _look(self, seconds: float, whole: bool) -> Seen:
        self._problem = ""
        self._read_config()
        size = self._file.size()
        if not whole and self._follower.position == 0 and self._has_ended(size):
            return Seen(self.run, self.place.address(self.run), _ENDED[self._listed.status], self._config, self._listed)
        self._ended_at = None
        self._follow(seconds, size)
        self._read_beat()
        if self._follower.position != self._position:
            self._summary = summarize(self._story, self._config)
            self._listed = Listed.model_validate(self._summary)
            self._position = self._follower.position
        state, quiet = self._state()
        return Seen(
            run=self.run,
            address=self.place.address(self.run),
            state=state,
            config=self._config,
            listed=self._listed,
            summary=self._summary,
            story=self._story,
            beat=self._beat,
            share=self._follower.share,
            quiet=quiet,
            problem=self._problem,
        )

    def _troubled(self, problem: str) -> Seen:
        known = self._seen or Seen(self.run, self.place.address(self.run), "silent", self._config, self._listed)
        return replace(known, problem=plain(problem))

    def _begin(self) -> Story:
        self._story = Story()
        return self._story

    def _follow(self, seconds: float, size: int | None) -> None:
        """Read on; a ledger that breaks a rule is read no further until it is another one."""
        if self._refused_at is not None and (size or 0) >= self._refused_at:
            self._problem = self._refusal
            return
        self._refused_at = None
        try:
            self._follower.catch_up(seconds)
        except LedgerError as error:
            self._refused_at, self._refusal = size or 0, str(error)
            self._problem = self._refusal

    def _has_ended(self, size: int | None) -> bool:
        """Tell whether the ledger ends with the end of the run, and its summary is there."""
        if size is None:
            return False
        if self._ended_at == size:
            return True
        last = self._file.read(max(0, size - TAIL), TAIL).rstrip(b"\n").rpartition(b"\n")[2]
        try:
            row = ROW.validate_json(last)
        except ValidationError:
            return False
        found = self.place.read(self.run, "summary.json") if isinstance(row, RunEndRow) else None
        listed = None if found is None else self._told(found, Listed, "summary.json")
        if listed is None or not isinstance(row, RunEndRow) or listed.status != row.status:
            return False
        self._listed, self._ended_at = listed, size
        return True

    def _read_config(self) -> None:
        now = time.monotonic()
        if now < self._next_config:
            return
        data = self.place.read(self.run, "config.json")
        if data is None:
            return  # a run writes it before its first row
        self._next_config = now + CONFIG_SECONDS
        found = self._told(data, Recorded, "config.json")
        if found is not None and found != self._config:
            self._config, self._position = found, -1

    def _read_beat(self) -> None:
        data = self.place.read(self.run, heartbeat.NAME)
        beat = None if data is None else self._told(data, Beat, heartbeat.NAME)
        if beat is None or beat == self._beat:
            return
        known, self._beat = self._beat is not None, beat
        age = 0.0 if known else max(0.0, self.clock() - beat.time)
        self._beat_heard = time.monotonic() - age

    def _told(self, data: bytes, kind: type[M], name: str) -> M | None:
        try:
            return read_bytes_told(data, kind, f"{self.place.address(self.run)}/{name}")
        except TunerError as error:
            self._problem = str(error)
            return None

    def _state(self) -> tuple[State, float | None]:
        sessions = self._story.sessions
        if not sessions:
            return "starting", None
        if (end := sessions[-1].end) is not None:
            return _ENDED[end.status], None
        if self._beat_heard is not None and self._beat is not None:
            quiet = time.monotonic() - self._beat_heard
            return ("running" if quiet < max(SILENT_SECONDS, 3 * self._beat.every) else "silent"), quiet
        quiet = max(0.0, self.clock() - sessions[-1].last)
        return ("running" if quiet < SILENT_SECONDS_OF_LEDGER else "silent"), quiet
