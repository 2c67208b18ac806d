"""What the labels of tabs say about models and data."""

from flax import nnx

from lvm_jax.data.records.manifest import Manifest
from lvm_jax.weights.model_folder import parameter_count


def millions(model: nnx.Module) -> str:
    """The number of a model's parameters, such as "5.3 million"."""
    return f"{parameter_count(model) / 1e6:,.1f} million"


def origins_in_words(manifest: Manifest) -> str:
    """The origins of the data with their licences, without repeats."""
    terms = dict.fromkeys(f"{s['origin']} ({s['licence']})" for s in manifest.sources.values())
    return "; ".join(terms)
