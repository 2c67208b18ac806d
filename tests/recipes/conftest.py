from tiny_models import make_sentence, write_shards

__all__ = ["make_sentence", "write_shards"]
