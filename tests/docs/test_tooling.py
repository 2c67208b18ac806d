"""The generators of docs/tooling: comments of configurations, flags of commands, links of the pages at the root."""

import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def tooling(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "tooling"))
    return importlib.import_module


CONFIG = """
def get_config(arg=None):
    config = ConfigDict()
    # How long.
    # And how large.
    config.train = ConfigDict()
    config.train.steps = 100  # one epoch
    # Rows of all
    # hosts.
    config.train.batch_size = 8
    config.train.seed = 0
    config.data = ConfigDict({
        "shards": "",  # a folder
        # Which way.
        "packing": "packed",
        "deep": {"er": 1},  # nested
    })
    config.optimizer = dataclasses.asdict(
        OptimizerConfig(
            b1=0.9,  # of the mean
            b2=0.95,
        )
    )
    mesh = config.mesh = ConfigDict()
    mesh.data = 1  # copies
    config.loss.weight = (
        0.5  # wrapped by the formatter
    )
    if arg:
        _small(config)
    return config


def _small(config):
    config.train.seed = 1  # only for this variant
    config.train.steps = 5  # too few
"""


def test_comments_belong_to_their_keys(tooling):
    found = tooling("config_pages").Comments.read(CONFIG).of_key
    assert found["train"] == "How long. And how large."
    assert found["train.steps"] == "one epoch"
    assert found["train.batch_size"] == "Rows of all hosts."
    assert found["train.seed"] == ""  # a variant's comment does not explain the key
    assert found["data.shards"] == "a folder"
    assert found["data.packing"] == "Which way."
    assert found["data.deep"] == found["data.deep.er"] == "nested"
    assert (found["optimizer.b1"], found["optimizer.b2"]) == ("of the mean", "")
    assert found["mesh.data"] == "copies"
    assert found["loss.weight"] == "wrapped by the formatter"


def test_attributes_of_a_docstring_are_read(tooling):
    docstring = """What.

    Attributes:
      steps: how many, which is
        said on two lines.
      name, version: of the data set.

    More.
    """
    assert tooling("config_pages").attributes(docstring) == {
        "steps": "how many, which is said on two lines.",
        "name": "of the data set.",
        "version": "of the data set.",
    }


@pytest.mark.parametrize("name", ["lvm", "tokenizer", "scaling_study", "recipe_study"])
def test_every_key_of_a_configuration_is_on_its_page(tooling, name):
    pages = tooling("config_pages")
    keys = pages.keys_of(ROOT / f"experiments/configs/{name}.py")
    assert len({key.name for key in keys}) == len(keys)
    page = next(page for page in pages.pages(ROOT) if page.title == name)
    assert all(f"| `{key.name}` |" in page.markdown for key in keys)


def test_keys_of_a_recipe_are_all_explained(tooling):
    pages = tooling("config_pages")
    for path in (ROOT / "experiments/configs").glob("*.py"):
        if pages.is_read_by_a_recipe(path):
            assert not [key.name for key in pages.keys_of(path) if not key.text], path.name


def test_links_between_files_become_links_between_pages(tooling):
    rewrite = tooling("root_pages").rewrite_links
    assert rewrite("[a](docs/scaling.md#the-table)", "index.md") == "[a](scaling.md#the-table)"
    assert rewrite("![](docs/images/demo.png)", "index.md") == "![](images/demo.png)"
    assert rewrite("[a](release/lvm/MODEL_CARD.md)", "index.md") == "[a](model_card_lvm.md)"
    assert rewrite("[a](../../CONTRIBUTING.md#golden-numbers)", "how_to/task.md") == (
        "[a](../contributing.md#golden-numbers)"
    )
    assert rewrite("[a](../release/lvm/MODEL_CARD.md)", "release.md") == "[a](model_card_lvm.md)"
    assert (
        rewrite("[a](#here) [b](https://x.org/y.md)", "index.md")
        == "[a](#here) [b](https://x.org/y.md)"
    )


def test_the_page_of_commands_has_flags_and_defaults(tooling):
    page = tooling("command_pages").page(ROOT)
    assert "## `python experiments/generate.py`" in page
    assert "| `--prompts` | `12` |" in page
    assert "| `--tokenizer` | required |" in page
    assert "## `python -m data_pipelines.verify`" in page


def test_every_package_has_a_page_of_its_modules(tooling):
    pages = {page.title: page.markdown for page in tooling("api_pages").pages(ROOT)}
    assert "::: lvm_jax.inference.sampling" in pages["lvm_jax.inference"]
    assert "::: lvm_jax.vocabulary" in pages["lvm_jax"]
    assert not [
        name for name, text in pages.items() if re.search(r"^::: .*\._", text, re.MULTILINE)
    ]


def test_joint_entries_of_a_docstring_are_told_apart(tooling):
    pytest.importorskip("griffe", reason="pip install 'lvm_jax[docs]'")
    split = tooling("joint_names").split_entries
    docstring = "What.\n\nArgs:\n  name, version: of the\n    data set.\n  x: it, too.\n\nLeft, right: stay."
    assert split(docstring) == (
        "What.\n\nArgs:\n  name: of the\n    data set.\n  version: of the\n    data set.\n  x: it, too.\n\n"
        "Left, right: stay."
    )
