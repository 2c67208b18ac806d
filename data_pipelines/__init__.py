"""Raw data to shards: sources, annotators, composers of visual sentences, renderers, and the Beam pipeline."""
