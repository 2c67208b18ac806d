"""Writing shards without Beam, for the tests of whole recipes."""

import pytest

from data_pipelines import build_uvd
from data_pipelines.build import shard_writer
from data_pipelines.build.composing import ItemCache
from data_pipelines.build.encoding import shared_encoder


@pytest.fixture
def plain_loop(monkeypatch):
    """Writes the shards one after the other, in the order given by its list, without Beam."""
    order = [1]

    def write(tasks, recipe, tokenizer, batch_size, fingerprint, beam_flags):
        encoder = shared_encoder(tokenizer, batch_size, recipe.encoding)
        for task in tasks[:: order[0]]:
            # A cache each, as if every shard had a worker of its own.
            shard_writer.ShardWriter(
                recipe, encoder, fingerprint, ItemCache(), lambda sentences: None
            ).write(task)

    monkeypatch.setattr(build_uvd, "_write_shards", write)
    return order
