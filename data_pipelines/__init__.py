"""Raw data to shards: sources, renderer, annotators, visual sentences and the Beam pipeline."""
