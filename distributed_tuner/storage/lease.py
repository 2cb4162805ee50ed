"""Exclusive write lease on an object-store prefix. Stores have no locks, but a written object is seen at once.

A run that wants to write puts down a claim first, and then looks for others. Of two that do so, at least one sees the
other, and a run that sees a claim that is alive gives up; so both never stay. A claim is alive while its owner renews
it. Ages are by the store's clock alone.
"""

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.storage.remote import Found, Remote

CLAIMS = ".claims"
RENEW_SECONDS = 5.0
STALE_SECONDS = 30.0
"""A claim that was not renewed for so long belongs to a process that is gone."""
POLL_SECONDS = 2.0


class LeaseLost(RunDirectoryError):
    """Another run has taken the URI over, while this one could not be heard of."""


class Lease:
    """Exclusive write lease on an object-store prefix. ``say``: takes a message when another run holds it."""

    def __init__(self, remote: Remote, say: Callable[[str], None]) -> None:
        self._remote = remote
        self._say = say
        self._name = f"{CLAIMS}/{uuid.uuid4().hex}.json"
        self._renewed = 0.0

    def take(self, *, patient: bool) -> None:
        """Take the lease. patient: wait until a claim that may be a dead run's is known to be.

        Raises:
            RunDirectoryError: another run writes there.
            OSError: the store cannot be reached.
        """
        self._put()
        try:
            others = self._others()
            if others and patient:
                others = self._outlive(others)
            if others:
                owner = _owner(self._remote, others[0])
                raise RunDirectoryError(
                    f"one run at a time writes to {self._remote.uri}, but {owner} does already; wait for its end or"
                    " stop it, or choose another place with --out"
                )
            self._clear()
        except BaseException:
            self.give_back()
            raise

    def renew(self) -> None:
        """Say that we are still here, every few seconds at most.

        Raises:
            LeaseLost: another run has taken over.
            OSError: the store cannot be reached.
        """
        if time.monotonic() < self._renewed + RENEW_SECONDS:
            return
        if not self._remote.exists(self._name):
            raise LeaseLost(
                f"another run has taken over {self._remote.uri}, since this one was not heard of for"
                f" {STALE_SECONDS:g} seconds; let that one continue"
            )
        self._put()

    def give_back(self) -> None:
        """End the claim. One that cannot be ended grows old."""
        with contextlib.suppress(OSError):
            self._remote.delete(self._name)

    def _put(self) -> None:
        self._remote.write(self._name, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        self._renewed = time.monotonic()

    def _others(self) -> list[Found]:
        """Return the claims of others that may be alive."""
        claims = self._remote.found(within=CLAIMS)
        now = max((claim.written for claim in claims if claim.name == self._name), default=0.0)
        return [claim for claim in _alive(claims, now) if claim.name != self._name]

    def _outlive(self, others: list[Found]) -> list[Found]:
        """Wait until the others have grown old; return those that are seen to be alive."""
        known = {claim.name: claim.written for claim in others}
        owner = _owner(self._remote, others[0])
        self._say(
            f"{owner} wrote to {self._remote.uri} less than {STALE_SECONDS:g} s ago; waiting for as long to see whether"
            " it still does"
        )
        while others:
            time.sleep(POLL_SECONDS)
            self._put()
            others = self._others()
            alive = [claim for claim in others if known.get(claim.name) != claim.written]
            if alive:
                return alive
        return []

    def _clear(self) -> None:
        """Take the claims of dead runs away: one that was only asleep finds its own gone, and stops."""
        for claim in self._remote.found(within=CLAIMS):
            if claim.name != self._name:
                self._remote.delete(claim.name)


def holder(remote: Remote, now: float) -> str | None:
    """Return the process that holds the lease on a prefix; None where none does.

    now: by the store's clock, as of something that was written there a moment ago. Raises OSError where the store
    cannot be reached.
    """
    claims = _alive(remote.found(within=CLAIMS), now)
    return _owner(remote, claims[0]) if claims else None


def _alive(claims: list[Found], now: float) -> list[Found]:
    return [claim for claim in claims if now - claim.written < STALE_SECONDS]


def _owner(remote: Remote, claim: Found) -> str:
    try:
        owner = json.loads(remote.read(claim.name))
        return f"the process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
