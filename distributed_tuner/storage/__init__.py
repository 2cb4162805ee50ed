"""Storage of runs: files written whole, and object stores with a local working copy."""

from distributed_tuner.storage.inbox import Inbox
from distributed_tuner.storage.lease import Lease
from distributed_tuner.storage.mirror import Mirror
from distributed_tuner.storage.place import Place, delivered, path_of, reaching, remote_of, staging_folder, using
from distributed_tuner.storage.remote import Remote
from distributed_tuner.storage.uri import Uri, is_uri

__all__ = [
    "Inbox",
    "Lease",
    "Mirror",
    "Place",
    "Remote",
    "Uri",
    "delivered",
    "is_uri",
    "path_of",
    "reaching",
    "remote_of",
    "staging_folder",
    "using",
]
