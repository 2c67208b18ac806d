"""A config file lists every key that it sets, each with a comment, and the recipe that it names knows them all."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.recipes import RECIPES, recipe_named

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
# Of the config file of each recipe: arguments that change what it sets.
ARGUMENTS = {
    "in_context_peers": ("", "seggpt,size=quickstart", "mae_vqgan,runlocal"),
    "lvm": ("", "small", "3b,runlocal"),
    "tokenizer": ("", "small,embedded", "debug,recipe=maskgit,l2_codes,runlocal"),
    "unified": (
        "",
        "quickstart",
        "small,experts=token,mt=False",
        "published,experts=dense,runlocal",
        "published,bins=0",
    ),
    "vary": ("", "base,stage=sft", "quickstart", "small,stage=lines", "toy,runlocal"),
}
# Tables whose keys are the user's own: names, not settings.
OPEN = ("data.repeats", "learning_rates", "mixtures", "common", "sizes", "variants", "evaluate")


def get_config(name, arg):
    spec = importlib.util.spec_from_file_location(f"config_{name}", CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg or None)


def leaves(tree, prefix=""):
    """Dotted names of all settings."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in OPEN:
            yield from leaves(value, f"{name}.")
        else:
            yield name


@pytest.mark.parametrize(
    ("name", "arg"), [(name, arg) for name, args in ARGUMENTS.items() for arg in args]
)
def test_a_file_sets_every_key_there_is_and_no_other(name, arg):
    config = get_config(name, arg)
    experiment = from_mapping(RECIPES[name].experiment, config)  # its defaults included
    known = leaves(dataclasses.asdict(experiment))
    assert set(leaves(config.to_dict())) == set(known)


def test_a_stage_that_a_size_does_not_have_is_refused():
    with pytest.raises(UserError, match="base has no stage=lines: choose pretrain or sft"):
        get_config("vary", "base,stage=lines")


@pytest.mark.parametrize(
    ("arg", "ids"),
    [
        ("", 52_295),
        ("bins=0", 51_290),
        ("bins=65", 51_359),
        ("quickstart,bins=0", 1_033),
        ("small,experts=dense,bins=0", 1_033),
    ],
)
def test_the_argument_sets_the_vocabulary_in_all_places(arg, ids):
    config = get_config("unified", arg)
    assert (config.model.vocab_size, config.rows.say_category) == (ids, "bins=0" not in arg)
    RECIPES["unified"].make_task(from_mapping(RECIPES["unified"].experiment, config))


def without_comment(text, name):
    """Of a file's text: keys that no line sets as `config.KEY = ...  # why`, or below a comment."""
    lines = text.splitlines()
    missing = []
    for key in leaves(get_config(name, "").to_dict()):
        found = [i for i, line in enumerate(lines) if re.match(rf"    config\.{key} = ", line)]
        if not any("  # " in lines[i] or lines[i - 1].lstrip().startswith("# ") for i in found):
            missing.append(key)
    return missing


@pytest.mark.parametrize("name", [*ARGUMENTS, "scaling_study", "recipe_study"])
def test_every_key_is_written_out_with_a_comment(name):
    text = (CONFIGS / f"{name}.py").read_text()
    assert not without_comment(text, name)
    assert not re.search(r"config\.\w+ = dataclasses\.asdict", text), "asdict lists no key"
    parts = {part for key in leaves(get_config(name, "").to_dict()) for part in key.split(".")}
    assert not [part for part in parts if hasattr(ConfigDict, part)], "no flag can set these"


def test_a_study_keeps_the_variants_that_are_named_and_the_base():
    config = get_config("recipe_study", "unified,only=experts-captioning")
    assert list(config.variants) == ["all_tasks", "captioning", "experts"]
    assert list(config.shares) == ["captioning"]
    with pytest.raises(UserError, match="only='luck': there is no such variant; known: all_tasks,"):
        get_config("recipe_study", "unified,only=luck")


@pytest.mark.parametrize(
    ("argument", "study"),
    [("tokenizer,answers", "decoder"), ("unified,leave_out", "decoder"), ("maps", "tokenizer")],
)
def test_an_argument_of_another_study_is_refused(argument, study):
    message = rf"config argument \w+ is of the study {study}: leave it out"
    with pytest.raises(UserError, match=message):
        get_config("recipe_study", argument)


@pytest.mark.parametrize("name", RECIPES)
def test_a_file_names_its_recipe(name):
    assert recipe_named(get_config(name, "").recipe) is RECIPES[name]


def test_an_unknown_recipe_is_named():
    with pytest.raises(UserError, match=r"config\.recipe is 'lmv': it must be one of lvm, tok"):
        recipe_named("lmv")


@pytest.mark.parametrize("name", [*ARGUMENTS, "scaling_study", "recipe_study"])
def test_an_unknown_argument_is_refused(name):
    def read():
        config = get_config(name, "nonsense")
        from_mapping(RECIPES[name].experiment, config)

    with pytest.raises(UserError, match="nonsense"):
        read()
