import dataclasses
import math
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Literal

import pytest
from ml_collections import ConfigDict

from lvm_jax.config import defaults, differences, from_mapping, parse_arg, to_dict
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 4
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Outer:
    rate: float
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1, 2)
    note: str | None = None
    shares: dict | None = None
    size: tuple[int, int] = (2, 3)
    named: Mapping[str, float] = dataclasses.field(default_factory=dict)
    either: str | dict[str, float] = ""


def test_a_config_dict_becomes_frozen_dataclasses():
    config = from_mapping(Outer, ConfigDict({"rate": 1, "inner": {"width": 8}, "sizes": (3,)}))
    assert config == Outer(rate=1.0, inner=Inner(width=8), sizes=(3,))
    assert isinstance(config.rate, float)
    assert to_dict(config)["inner"] == {"width": 8, "kind": "a"}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"rate": 1.0, "inner": {"widht": 8}},
            r"config\.inner\.widht does not exist in Inner; did you mean 'width'",
        ),
        ({}, r"config\.rate is missing"),
        ({"rate": "fast"}, r"config\.rate is 'fast' \(str\): it must be of type float"),
        (
            {"rate": 1.0, "inner": {"kind": "c"}},
            r"config\.inner\.kind is 'c': it must be one of 'a', 'b'",
        ),
        ({"rate": 1.0, "sizes": (1, "x")}, r"config\.sizes\[1\] is 'x'"),
        ({"rate": 1.0, "inner": 3}, r"config\.inner is 3: it must hold the keys of Inner"),
        ({"rate": True}, r"config\.rate is True"),
        ({"rate": float("nan")}, r"config\.rate is nan: give a finite number"),
        ({"rate": -math.inf}, r"config\.rate is -inf: give a finite number"),
        ({"rate": 1.0, "inner": {"width": math.inf}}, r"config\.inner\.width is inf"),
        ({"rate": 1.0, "shares": {"a": [0.5, math.nan]}}, r"config\.shares\.a\[1\] is nan"),
        ({"rate": 10**400}, r"config\.rate is above 1.79769e\+308: give less"),
        ({"rate": 1.0, "size": (1, 2, 3)}, r"config\.size is \(1, 2, 3\): it must have 2 values"),
        ({"rate": 1.0, "size": (1, "b")}, r"config\.size\[1\] is 'b'"),
        ({"rate": 1.0, "named": {"a": "much"}}, r"config\.named\.a is 'much' \(str\)"),
        ({"rate": 1.0, "named": [0.5]}, r"config\.named is \[0\.5\]: it must be a mapping"),
        ({"rate": 1.0, "either": {"a": "much"}}, r"config\.either\.a is 'much' \(str\)"),
    ],
)
def test_mistakes_name_the_place_and_the_fix(mapping, message):
    with pytest.raises(UserError, match=message):
        from_mapping(Outer, mapping)


def test_arguments_after_the_colon():
    defaults = {"size": "debug", "runlocal": False, "res": 64}
    assert parse_arg(None, **defaults) == defaults
    assert parse_arg("3b,runlocal,res=256", **defaults) == {
        "size": "3b",
        "runlocal": True,
        "res": 256,
    }
    assert parse_arg("runlocal", **defaults)["runlocal"] is True
    with pytest.raises(UserError, match="did you mean 'res'"):
        parse_arg("3b,ress=1", **defaults)
    with pytest.raises(UserError, match="res is 'big': it must be of type int"):
        parse_arg("res=big", **defaults)
    with pytest.raises(UserError, match="rate is nan: give a finite number"):
        parse_arg("rate=nan", rate=0.5)


def test_differences_name_each_leaf():
    old, new = {"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4}
    assert differences(old, new) == ["config.b.c: 2 -> 3", "config.d: '(absent)' -> 4"]


def test_nan_equals_nan():
    """A configuration that holds NaN, wherever it came from, is the same configuration when it is read again."""
    old = {"a": math.nan, "b": [1.0, [math.nan]], "c": {"d": math.nan}}
    assert (
        differences(old, {"a": float("nan"), "b": [1.0, [-math.nan]], "c": {"d": math.nan}}) == []
    )
    assert differences(old, {**old, "b": [1.0, [2.0]]}) == [
        "config.b: [1.0, [nan]] -> [1.0, [2.0]]"
    ]
    assert differences({"a": 1.0}, {"a": math.nan}) == ["config.a: 1.0 -> nan"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config=experiments/configs/lvm.py:4b"], "decoder preset '4b' does not exist"),
        (
            ["--config=experiments/configs/lvm.py:debug", "--config.train.stepps=3"],
            'Did you mean "steps"',
        ),
        (["--config=nowhere.py"], "nowhere.py"),
        (["--confg=experiments/configs/lvm.py"], "Unknown command line flag 'confg'"),
        (["--config=experiments/configs/lvm.py:debug", "typo"], "unexpected argument 'typo'"),
        (["--config=experiments/configs/lvm.py:debug"], "data.shards is empty"),
        (
            ["--config=experiments/configs/lvm.py:debug", "--config.optimizer.learning_rate=nan"],
            "config.optimizer.learning_rate is nan",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(words, message, tmp_path):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "experiments/train.py",
        f"--workdir={tmp_path}",
        *words,
    ]
    root = pathlib.Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_defaults_are_those_of_all_parts():
    @dataclasses.dataclass(frozen=True)
    class Part:
        needed: int
        size: tuple[int, ...] = (1, 2)

    @dataclasses.dataclass(frozen=True)
    class Whole:
        part: Part
        seed: int
        other: Part = dataclasses.field(default_factory=lambda: Part(3))

    assert defaults(Whole) == {
        "part": {"size": [1, 2]},
        "other": {"needed": 3, "size": [1, 2]},
    }
