"""Both places that a log can be in."""

from tests.storage.conftest import s3_storage, storage

__all__ = ["s3_storage", "storage"]
