"""Fair queue of the pool: no client gets more of it than another while both wait. No Ray in here.

Start-time fair queueing: a client's clock advances by the cost of its tiles that were taken, and the client whose clock
is furthest behind is served next. One that comes back after a pause starts with the others; what it did not use is
gone. So a trial with a large population gets as much of the pool's time as one with a small one, however each cuts its
requests; one of twice the priority gets twice as much, and every client gets something.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Line(Generic[T]):
    """Queue of one client: its requests, which take turns. ``clock``: the cost that it was served over its
    priority, and the start that it was given."""

    clock: float
    priority: float
    requests: "deque[deque[T]]" = field(default_factory=deque)


class FairQueue(Generic[T]):
    """Items in the order in which they are to be served. ``cost``: what serving one takes, in any unit, above 0."""

    def __init__(self, cost: Callable[[T], float]) -> None:
        self._cost = cost
        self._lines: dict[str, _Line[T]] = {}
        self._clocks: dict[str, float] = {}  # of askers that wait for nothing, and have been served more than others
        self._now = 0.0  # the clock of the asker that was served last
        self._first: deque[T] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count + len(self._first)

    def put(self, client_id: str, items: Sequence[T], priority: float = 1.0) -> None:
        """Add the items of one request. ``priority``: above 0; the client's share relative to others."""
        if not items:
            return
        if client_id not in self._lines:
            self._lines[client_id] = _Line(max(self._now, self._clocks.pop(client_id, 0.0)), priority)
        self._lines[client_id].requests.append(deque(items))
        self._count += len(items)

    def put_first(self, item: T) -> None:
        """Add an item that was served before, in vain; it goes before everything else and is not charged again."""
        self._first.append(item)

    def take(self, most: int = 1, fits: Callable[[T], bool] = lambda item: True) -> list[T]:
        """Take up to ``most`` items of one request; none: nothing waits, or what goes first does not fit.

        ``fits`` is asked about the items of ``put_first`` alone; those that do not fit are passed over.
        """
        for at, item in enumerate(self._first):
            if fits(item):
                del self._first[at]
                return [item]
        if not self._lines:
            return []
        client_id = min(self._lines, key=lambda name: self._lines[name].clock)
        line = self._lines[client_id]
        request = line.requests.popleft()
        taken = [request.popleft() for _ in range(min(most, len(request)))]
        if request:
            line.requests.append(request)
        self._count -= len(taken)
        self._now = line.clock
        line.clock += sum(self._cost(item) for item in taken) / line.priority
        if not line.requests:
            self._close(client_id)
        return taken

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Remove items whose callers no longer wait."""
        self._first = deque(item for item in self._first if not unwanted(item))
        for client_id, line in list(self._lines.items()):
            kept = [deque(item for item in request if not unwanted(item)) for request in line.requests]
            line.requests = deque(request for request in kept if request)
            if not line.requests:
                self._close(client_id)
        self._count = sum(len(request) for line in self._lines.values() for request in line.requests)

    def _close(self, client_id: str) -> None:
        """Keep the clock of an asker that may be ahead of others, so that many small requests overtake no large one."""
        self._clocks[client_id] = self._lines.pop(client_id).clock
        if len(self._clocks) > 1000:
            self._clocks = {name: clock for name, clock in self._clocks.items() if clock > self._now}
