from fake_cloud import remote
from tiny_models import vqgan

__all__ = ["remote", "vqgan"]
