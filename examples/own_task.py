"""A task of one's own: is a number even? Its rows are made up as they are needed."""

from collections.abc import Iterator

from distributed_tuner.tasks.custom import TaskSource


class Parity(TaskSource):
    """Numbers below ``limit``, and whether they are even; test has those above it."""

    def __init__(self, *, limit: int = 100) -> None:
        self._limit = limit

    def train(self) -> Iterator[dict[str, object]]:
        return self._rows(range(self._limit))

    def test(self) -> Iterator[dict[str, object]]:
        return self._rows(range(self._limit, self._limit + 50))

    def _rows(self, numbers: range) -> Iterator[dict[str, object]]:
        yield from ({"text": f"The number {number}", "even": number % 2 == 0} for number in numbers)
