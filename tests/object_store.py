"""An S3 server on loopback, moto's, and the URIs of a bucket in it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class ObjectStore:
    """A server with an empty bucket. client: boto3's, for looking behind what is tested."""

    port: int
    client: Any

    def uri(self, path: str) -> str:
        """Return the URI of a path in the bucket."""
        return f"s3://{BUCKET}/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def names(self, path: str) -> list[str]:
        """Return the names of the objects below a path, without markers of folders."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{path}/").get("Contents", [])
        return [one["Key"].removeprefix(f"{path}/") for one in found if not one["Key"].endswith("/")]

    def read(self, name: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return data

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def clear(self, path: str) -> None:
        for name in self.names(path):
            self.client.delete_object(Bucket=BUCKET, Key=f"{path}/{name}")


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Start the server, and put its keys into this process's environment for as long."""
    import boto3
    from moto.server import ThreadedMotoServer

    before = {name: os.environ.get(name) for name in KEYS}
    os.environ.update(KEYS)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield ObjectStore(port, client)
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
