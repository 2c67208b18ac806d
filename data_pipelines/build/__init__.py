"""From a recipe to shards: plan, compose, encode, write, and run it all on Beam."""
