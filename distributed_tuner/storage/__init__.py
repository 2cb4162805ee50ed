"""What is kept in an object store: a local copy that is worked in, and the remote one that lasts."""

from distributed_tuner.storage.lease import Lease
from distributed_tuner.storage.mirror import Mirror
from distributed_tuner.storage.place import Place, delivered, path_of, reaching, remote_of, staging_folder, using
from distributed_tuner.storage.remote import Remote
from distributed_tuner.storage.uri import Uri, is_uri

__all__ = [
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
