"""A prefix of an S3 bucket: AWS, or any server that speaks its protocol (`AWS_ENDPOINT_URL`).

Credentials come from boto3's standard chain alone: environment, profile or role.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from optirag_core.config.run import StorageSettings
from optirag_core.errors import StorageError
from optirag_core.storage.local import named
from optirag_core.storage.s3_errors import (
    ABSENT,
    BOTO_ERRORS,
    BROKEN_OFF,
    CONFLICT,
    TAKEN,
    BrokenOff,
    Refused,
    cause_of,
    is_worth_another,
    refusal,
    spent_retries,
)

MAX_CONNECTIONS = 16
"""As many small files of a run are read or written at a time (`runs.run.THREADS`)."""


class S3Storage:
    """`Storage` of a bucket's prefix."""

    def __init__(self, rest: str, settings: StorageSettings) -> None:
        """Nothing is sent yet.

        Args:
            rest: "bucket/prefix", what follows `s3://`.

        Raises:
            StorageError: no bucket is named.
        """
        self.bucket, _, prefix = rest.partition("/")
        if not self.bucket:
            raise StorageError(f"s3://{rest} names no bucket: give s3://bucket/prefix")
        self.prefix = prefix.strip("/")
        self.uri = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self._settings = settings
        self._opened: tuple[int, Any] | None = None  # process id, client

    def read(self, path: str) -> bytes | None:
        def get(client: Any) -> bytes:
            body = client.get_object(**self._at(path))["Body"]
            try:
                return body.read()
            except BROKEN_OFF as error:
                raise BrokenOff from error

        try:
            return self._try("read", path, get)
        except Refused as error:
            if error.code in ABSENT:
                return None
            raise

    def write(self, path: str, content: bytes) -> None:
        self._try("write", path, lambda client: client.put_object(**self._at(path), Body=content))

    def create(self, path: str, content: bytes) -> bytes:
        for attempt in range(self._settings.max_attempts):
            try:
                self._try(
                    "create", path, lambda client: client.put_object(**self._at(path), Body=content, IfNoneMatch="*")
                )
                return content
            except Refused as error:
                if error.code not in TAKEN + CONFLICT:
                    raise
                # A reply that got lost is tried again by boto3 and then refused: what is there is our own.
                if error.code in TAKEN and (there := self.read(path)) is not None:
                    return there
            _pause(attempt)  # another writer is at it, or took its file away again
        raise StorageError(
            f"create {self._named(path)}: other writers were in the way {self._settings.max_attempts} times: "
            "run the same command again"
        )

    def upload(self, file: Path, path: str) -> None:
        with named(file):
            self._try(
                "upload",
                path,
                lambda client: client.upload_file(str(file), self.bucket, self._key(path), Config=self._transfer),
            )

    def download(self, path: str, file: Path) -> None:
        with named(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._try(
                    "download",
                    path,
                    lambda client: client.download_file(self.bucket, self._key(path), str(file), Config=self._transfer),
                )
            except Refused as error:
                if error.code in ABSENT:
                    self.exists(path)  # raises where it is the bucket that is not there
                raise

    def exists(self, path: str) -> bool:
        try:
            self._try("look for", path, lambda client: client.head_object(**self._at(path)))
        except Refused as error:
            if error.code not in ABSENT:
                raise
            return self.read(path) is not None  # HEAD cannot tell a missing file from a missing bucket, GET can
        return True

    def list(self, folder: str) -> list[str]:
        prefix = "".join(f"{part}/" for part in (self.prefix, folder.strip("/")) if part)

        def pages(client: Any) -> list[str]:
            found = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return [entry["Key"] for page in found for entry in page.get("Contents", ())]

        root = len(self.prefix) + 1 if self.prefix else 0
        keys = self._try("list", folder, pages)
        return sorted(key[root:] for key in keys if not key.endswith("/"))  # consoles make empty "folder/" objects

    def delete(self, path: str) -> None:
        self._try("delete", path, lambda client: client.delete_object(**self._at(path)))

    def __getstate__(self) -> dict[str, Any]:
        """Clients cannot be pickled; the other side opens its own."""
        return {**self.__dict__, "_opened": None}

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def _at(self, path: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(path)}

    def _named(self, path: str) -> str:
        return f"{self.uri}/{path}".rstrip("/")

    @property
    def _transfer(self) -> TransferConfig:
        return TransferConfig(num_download_attempts=self._settings.max_attempts)

    def _client(self) -> Any:
        """This process's client: a forked process must not write into its parent's connections."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            config = Config(
                retries={"mode": "standard", "total_max_attempts": self._settings.max_attempts},
                connect_timeout=self._settings.connect_timeout_s,
                max_pool_connections=MAX_CONNECTIONS,
                read_timeout=self._settings.read_timeout_s,
                request_checksum_calculation="when_required",  # boto3's newer default breaks other S3 servers
                response_checksum_validation="when_required",
            )
            try:
                opened = os.getpid(), boto3.session.Session().client("s3", config=config)
            except ValueError as error:
                if isinstance(error, BotoCoreError):  # it says which setting
                    raise
                raise StorageError("AWS_ENDPOINT_URL is no URL: give http://host:port or https://host") from None
            self._opened = opened
        return opened[1]

    def _try(self, verb: str, path: str, action: Callable[[Any], Any]) -> Any:
        """Run one operation; boto3 repeats its requests, this repeats what boto3 gives up too early.

        That is an answer that broke off, and a client whose retry quota ran dry: boto3 shares one between all requests
        of a client, so lasting errors or one outage would leave it without retries for hundreds of requests.
        """
        for attempt in range(1, self._settings.max_attempts + 1):
            try:
                return action(self._client())
            except BOTO_ERRORS as error:
                cause = cause_of(error)
                if spent_retries(cause):
                    self._opened = None  # the next request gets a full quota
                if attempt == self._settings.max_attempts or not is_worth_another(cause):
                    raise refusal(cause, f"{verb} {self._named(path)}") from None
            _pause(attempt)
        raise AssertionError("max_attempts is at least 1")


def _pause(attempt: int) -> None:
    """Of random length, so that many actors do not come back at once."""
    time.sleep(random.random() * min(0.05 * 2**attempt, 2.0))
