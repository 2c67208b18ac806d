"""How a model's folder says its answers are drawn, and what becomes of the candidates."""

import json

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.inference.defaults import Defaults, answers_of, read_defaults
from lvm_jax.inference.sampling import Sampling


def test_defaults_survive_their_file(tmp_path):
    assert read_defaults(tmp_path) is None
    wanted = Defaults(temperature=0.5, top_p=0.9, candidates=4, answer="mean")
    wanted.save(tmp_path)
    assert read_defaults(tmp_path) == wanted
    assert wanted.sampling == Sampling(0.5, 0, 0.9, 0.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"temprature": 1}, "did you mean temperature"),
        ({"temperature": -1.0}, "must be 0"),
        ({"candidates": 0}, "at least 1"),
        ({"candidates": 2.5}, "candidates is 2.5, which is no int"),
        ({"top_p": True}, "top_p is True"),
        ({"answer": "best"}, "each, mean, likeliest"),
        ([], "is no object"),
        ("{", "is not JSON"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, content, words):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "generation.json").write_text(text)
    with pytest.raises(UserError, match=f"generation.json.*{words}"):
        read_defaults(tmp_path)


def test_one_answer_of_many_candidates():
    pictures = np.array([[0.0, 1.0], [0.5, 0.0], [1.0, 0.5]], np.float32)
    likelihoods = np.array([-3.0, -1.0, -2.0], np.float32)
    assert answers_of(pictures, likelihoods, "each") is pictures
    np.testing.assert_allclose(answers_of(pictures, likelihoods, "mean"), [[0.5, 0.5]])
    assert answers_of(pictures, likelihoods, "likeliest").tolist() == [[0.5, 0.0]]
