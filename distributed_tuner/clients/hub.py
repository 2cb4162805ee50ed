"""Reachability of the Hugging Face Hub. Loading from it is left to tasks and oracles."""

import functools
import os
import socket
import urllib.request
from urllib.parse import urlsplit


@functools.cache
def hub_is_near() -> bool:
    """Tell whether the hub can be connected to; without this its client would retry for half a minute a file."""
    if urllib.request.getproxies():
        return True
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        socket.create_connection((hub.hostname or "", hub.port or (80 if hub.scheme == "http" else 443)), 5).close()
    except OSError:
        return False
    return True
