"""lvm_jax: pretraining of large vision models in JAX.

Importing the package starts no backend and imports neither JAX nor Flax. Import the room that you need:

    from lvm_jax.models import Decoder, VQGAN, presets
    from lvm_jax.inference import VisualPrompt, generate_images
    from lvm_jax.vocabulary import Vocabulary
"""

__version__ = "0.1.0"
