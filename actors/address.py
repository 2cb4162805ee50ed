"""The address of a Ray cluster that a run joins: its source, and whether a server answers there."""

import os
import socket
from dataclasses import dataclass

from actors.ray_internals.private import bootstrap_address
from distributed_tuner.errors import ClusterError

VARIABLE = "RAY_ADDRESS"
CLIENT, CLIENT_PORT = "ray://", 10001
ANSWER_SECONDS = 5.0  # for a server there to answer


@dataclass(frozen=True, slots=True)
class Address:
    """Given address, and its source: ``--address`` or the environment's ``RAY_ADDRESS``."""

    text: str
    source: str

    @classmethod
    def of(cls, asked: str | None) -> "Address | None":
        """Return the cluster that a run is to join, as Ray finds it; None where it starts one of its own."""
        named = os.environ.get(VARIABLE, "")
        if asked in (None, "", "auto") and named:
            asked, source = named, VARIABLE
        else:
            source = "--address"
        return None if asked in (None, "", "local") else cls(str(asked), source)

    def __str__(self) -> str:
        return f"{self.text} ({self.source})"

    def require_there(self) -> None:
        """Check that somebody listens there: Ray itself would wait for minutes.

        Raises:
            ClusterError: no cluster answers, or the address is invalid.
        """
        try:
            host, port = self._place()
        except (ValueError, ConnectionError) as error:
            raise self.refused(str(error)) from None
        try:
            socket.create_connection((host, port), ANSWER_SECONDS).close()
        except OSError as error:
            raise self.refused(f"no server listens there: {error.strerror or error}") from None
        if not _speaks_grpc(host, port):
            raise self.refused("the server there is not Ray")

    def refused(self, why: str) -> ClusterError:
        """Return the error of a cluster that cannot be joined."""
        own = f"unset {VARIABLE}" if self.source == VARIABLE else "leave --address out"
        return ClusterError(
            f"a run joins the cluster that {self.source} names, but {self.text!r} cannot be joined"
            f" ({' '.join(why.split())}); start it, or correct the address, HOST:6379 on its machines and ray://HOST:10001"
            f" elsewhere; {own} and the run starts its own Ray"
        )

    def _place(self) -> tuple[str, int]:
        """Return host and port. Raises ValueError where there are none, ConnectionError where Ray knows of none."""
        text = self.text
        if text == "auto":
            text = bootstrap_address(text)
        client = text.startswith(CLIENT)
        bare = text.removeprefix(CLIENT)
        if "/" in bare:
            raise ValueError("an address of a web page or of a job server is none of a cluster")
        host, colon, port = bare.rpartition(":")
        if not colon and client:
            host, port = bare, str(CLIENT_PORT)
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ValueError("it has no host and port")
        return host.strip("[]"), int(port)


def _speaks_grpc(host: str, port: int) -> bool:
    """Tell whether what listens there speaks as Ray's parts do. With TLS that is left to Ray, which has the keys."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True
    import grpc

    shown = f"[{host}]" if ":" in host else host
    with grpc.insecure_channel(f"{shown}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True
