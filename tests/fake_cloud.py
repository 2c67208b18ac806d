"""Google's store in memory, for paths that begin with gs://."""

import sys
from typing import ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem


class CloudInMemory(MemoryFileSystem):
    """Google's store as fsspec shows it: names begin with the bucket, without a slash."""

    cachable = False
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))

    def glob(self, path, **kwargs):
        return [found.lstrip("/") for found in super().glob(path, **kwargs)]


@pytest.fixture
def remote(monkeypatch):
    registry = sys.modules["fsspec.registry"]._registry
    for name in ("gs", "gcs"):
        monkeypatch.setitem(registry, name, CloudInMemory)
    monkeypatch.setattr(CloudInMemory, "store", {})
    monkeypatch.setattr(CloudInMemory, "pseudo_dirs", [""])
