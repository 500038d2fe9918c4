"""URIs of places."""

import pytest

from optirag_core.config.run import StorageSettings
from optirag_core.errors import StorageError
from optirag_core.storage.base import is_local, open_storage
from optirag_core.storage.local import LocalStorage


@pytest.mark.parametrize("uri", ["s3://KEY:secret@bucket/prefix", "s3://KEY:sec/ret@bucket/prefix", "s3://KEY@bucket"])
def test_a_uri_with_credentials_is_refused_without_showing_them(uri):
    with pytest.raises(StorageError, match="must not carry credentials") as caught:
        open_storage(uri, StorageSettings())

    assert "ret" not in str(caught.value)


def test_an_unknown_scheme_is_named():
    with pytest.raises(StorageError, match="gs:// is no place that OptiRAG knows"):
        open_storage("gs://bucket", StorageSettings())


def test_local_places(tmp_path):
    for uri in (str(tmp_path), f"file://{tmp_path}"):
        assert is_local(uri)
        assert isinstance(storage := open_storage(uri, StorageSettings()), LocalStorage)
        assert storage.uri == str(tmp_path)
