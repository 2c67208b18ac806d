import pytest
from fake_cloud import remote
from shard_fakes import write_dataset

__all__ = ["dataset", "remote"]


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "shards")
