from tiny_models import make_sentence, model, vqgan, write_shards

__all__ = ["make_sentence", "model", "vqgan", "write_shards"]
