"""What S3 alone does: refusals in words, and no credential in any of them."""

import time

import boto3
import pytest

from optirag_core.config.run import StorageSettings
from optirag_core.errors import StorageError
from optirag_core.storage.base import open_storage

pytestmark = pytest.mark.s3
OPERATIONS = ["read", "write", "create", "upload", "download", "exists", "list", "delete"]
SECRET = "TopSecretValue/0123456789+abcdefghijklmn"


def perform(storage, operation, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    arguments = {
        "write": ("path", b"x"), "create": ("path", b"x"), "upload": (file, "path"), "download": ("path", file)
    }  # fmt: skip
    return getattr(storage, operation)(*arguments.get(operation, ("path",)))


def refused(uri, operation, tmp_path, **settings):
    started = time.monotonic()
    with pytest.raises(StorageError) as error:
        perform(open_storage(uri, StorageSettings(**settings)), operation, tmp_path)
    assert error.value.__cause__ is None and error.value.__suppress_context__
    text = str(error.value)
    assert SECRET not in text and "AKIA" not in text and "\n" not in text
    assert uri in text
    return text, time.monotonic() - started


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_unknown_key_is_refused_at_once(s3_bucket, tmp_path, monkeypatch, operation):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN0000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    text, seconds = refused(s3_bucket, operation, tmp_path)
    assert "InvalidAccessKeyId: check the credentials" in text or "403: check the credentials" in text
    assert seconds < 5


@pytest.mark.parametrize("operation", ["read", "exists", "upload"])
def test_a_wrong_secret_is_refused_at_once(s3_bucket, tmp_path, monkeypatch, operation):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    text, seconds = refused(s3_bucket, operation, tmp_path)
    assert "SignatureDoesNotMatch: check the credentials" in text or "403: check the credentials" in text
    assert seconds < 5


def test_no_credentials(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    text, seconds = refused(s3_bucket, "read", tmp_path)
    assert "read " in text and "/path: NoCredentialsError: there are none: check the credentials" in text
    assert seconds < 5


@pytest.mark.parametrize("value", [f"{SECRET}\n", "AKIA\n0000"])
def test_credentials_with_a_line_break_are_not_shown(s3_bucket, tmp_path, monkeypatch, value):
    """The HTTP client would quote the whole header."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", value)
    refused(s3_bucket, "read", tmp_path, max_attempts=2)


def test_a_profile_that_is_none(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "ProfileNotFound: AWS_PROFILE names no profile" in refused(s3_bucket, "read", tmp_path)[0]


def test_a_region_that_is_none(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "no region!")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "no region!")
    assert "InvalidRegionError: AWS_REGION is no name of a region" in refused(s3_bucket, "read", tmp_path)[0]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_bucket_that_is_not_there(s3_endpoint, tmp_path, operation):
    text, _ = refused("s3://no-such-bucket-anywhere/prefix", operation, tmp_path)
    assert ": NoSuchBucket: there is no such bucket: create it" in text


@pytest.mark.parametrize("name", ["A", "with space", "ü"])
def test_a_bucket_that_cannot_be(s3_endpoint, tmp_path, name):
    refused(f"s3://{name}", "read", tmp_path)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_is_not_there(s3_bucket, tmp_path, monkeypatch, operation):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    text, seconds = refused(s3_bucket, operation, tmp_path, max_attempts=3)
    assert "check AWS_ENDPOINT_URL, the network and that the server runs" in text
    assert seconds < 10


def test_an_endpoint_that_is_no_url(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL is no URL: give http://host:port"):
        open_storage(s3_bucket, StorageSettings()).read("path")


def test_folder_objects_of_consoles_are_no_files(s3_bucket):
    storage = open_storage(f"{s3_bucket}/prefix", StorageSettings())
    boto3.session.Session().client("s3").put_object(Bucket=s3_bucket.removeprefix("s3://"), Key="prefix/a/", Body=b"")
    storage.write("a/file", b"x")
    assert storage.list("a") == ["a/file"]


def test_a_bucket_without_prefix(s3_bucket):
    storage = open_storage(s3_bucket, StorageSettings())
    storage.write("a/file", b"x")
    assert storage.uri == s3_bucket
    assert storage.list("") == storage.list("a") == ["a/file"]


def test_one_client_serves_many_requests(s3_storage):
    s3_storage.write("file", b"x")
    started = time.monotonic()
    for _ in range(20):
        s3_storage.read("file")
    assert time.monotonic() - started < 5
