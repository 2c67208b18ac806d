"""Every recipe of every preset is a configuration that the task accepts, and differs where it says it does."""

import sys
from pathlib import Path

import pytest

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.tasks.tokenizer import TokenizerLoss, TokenizerStep
from lvm_jax.training.optimizer import OptimizerConfig

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "configs"))
from tokenizer import get_config

PRESETS = (
    "lvm-f16-8192",
    "maskgit-f16-8192",
    "taming-f16-1024",
    "debug",
    "small",
)
OF_PATCHES = ("quickstart", "patches")
SECTIONS = {
    "model": VQGANConfig,
    "discriminator": DiscriminatorConfig,
    "loss": TokenizerLoss,
    "step": TokenizerStep,
    "generator": OptimizerConfig,
    "critic": OptimizerConfig,
}


def read(arg: str) -> dict:
    config = get_config(arg)
    return {name: from_mapping(kind, config[name]) for name, kind in SECTIONS.items()}


@pytest.mark.parametrize("preset", [*PRESETS, *OF_PATCHES])
@pytest.mark.parametrize("recipe", ["taming", "maskgit", "lvm"])
def test_a_recipe_changes_how_and_not_what_is_trained(preset: str, recipe: str):
    config = read(f"{preset},recipe={recipe}")
    assert config["model"] == presets.vqgan(preset)
    assert (config["discriminator"].kind == "style") == (recipe == "maskgit")
    assert (config["step"].ema_decay > 0) == (recipe != "taming")
    read(f"{preset},recipe={recipe},runlocal")
    if preset in PRESETS:
        read(f"{preset},recipe={recipe},l2_codes,runlocal")


@pytest.mark.parametrize("preset", OF_PATCHES)
def test_patches_start_from_kmeans_and_need_no_discriminator(preset: str):
    config = get_config(preset)
    assert config.kmeans.images > 0
    assert config.loss.adversarial_weight == 0
    assert read(preset)["model"] == presets.vqgan(preset)
    with pytest.raises(UserError, match="values of a patch"):  # a code is a patch, not 8 numbers
        read(f"{preset},l2_codes")


def test_l2_codes_are_asked_for():
    for preset in PRESETS:
        model = read(f"{preset},l2_codes")["model"]
        assert model.l2_normalize
        assert model.quantized_embed_dim == 8


def test_an_unknown_recipe_is_named():
    with pytest.raises(
        UserError, match="recipe 'best' does not exist; known: taming, maskgit, lvm"
    ):
        get_config("debug,recipe=best")


def test_pictures_of_in_context_sentences_have_shares_of_their_own():
    config = get_config("patches,in_context")
    assert config.data.repeats["train/edges"] == 5
    assert not get_config("patches").data.repeats
    assert config.loss.quantization_weight == 0, "the codes of k-means stay"
    assert get_config("quickstart").loss.quantization_weight == 1
