"""lvm_jax: pretraining of Large Vision Models in JAX.

Importing the package starts no backend and pulls in neither JAX nor Flax: import the room you need,
`from lvm_jax.models import Llama, VQGAN, presets`, `from lvm_jax.inference import VisualPrompt`.
"""

__version__ = "0.1.0"
