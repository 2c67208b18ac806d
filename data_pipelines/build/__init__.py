"""From a recipe to shards: the plan, composing, encoding, the shard writer, Beam."""
