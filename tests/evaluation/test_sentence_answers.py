"""Answers to held-out sentences: what is asked, what it is compared with, and which way of drawing wins."""

import numpy as np
import pytest
from PIL import Image

from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import headline
from lvm_jax.evaluation.lvm.sampling_study import StudyConfig, study
from lvm_jax.evaluation.lvm.sentence_answers import AnswersEvaluator, baselines, read_back
from lvm_jax.evaluation.lvm.shown_sentences import show_sentences
from lvm_jax.evaluation.lvm.visual_benchmark import Subject
from lvm_jax.metrics.states import Mean
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.reporting.sampling import as_markdown


class Knowing:
    """Answers with the image after a prompt it knows if drawn greedily, and with noise at a temperature.

    The likelihood is the number of codes that are right.
    """

    def __init__(self, sentences, codes=24):
        self.known = {s.codes[:-1].tobytes(): s.codes[-1] for s in sentences}
        self.codes, self.asked = codes, 0

    def generate_scored(self, prompts, *, n_candidates, sampling, seed):
        self.asked += len(prompts)
        rng = np.random.default_rng(seed)
        made = []
        for prompt in prompts:
            truth = self.known.get(prompt.astype(np.uint16).tobytes(), prompt[0])
            noise = rng.integers(0, self.codes, (n_candidates, len(truth)))
            wrong = rng.random(noise.shape) < sampling.temperature
            made.append(np.where(wrong, noise, truth))
        right = [
            (m == self.known.get(p.astype(np.uint16).tobytes(), p[0])).sum(-1)
            for m, p in zip(made, prompts)
        ]
        return np.stack(made)[:, :, None].astype(np.int32), np.array(right, np.float32)


@pytest.fixture(scope="module")
def sentences(make_sentence) -> list[VisualSentence]:
    pairs = [make_sentence("image,thing,image,thing,image,thing", 2, i, "p") for i in range(8)]
    clips = [make_sentence("frame*3", 3, 20 + i, "walks") for i in range(4)]
    return [*pairs, *clips]


def test_the_baselines_are_what_they_say():
    shades = (10, 100, 200, 50, 20, 0)  # query, answer, query, answer, query, truth
    images = np.stack([np.full((4, 4, 3), shade, np.uint8) for shade in shades])
    found = {name: int(answers[0].mean()) for name, answers in baselines([images], 2).items()}
    assert found == {"copy": 50, "nearest": 100, "mean": 75, "query": 20}
    frames = {name: int(answers[0].mean()) for name, answers in baselines([images], 1).items()}
    assert frames == {"copy": 20, "mean": 76}


def test_borders_of_a_decoded_truth_are_no_classes():
    colours = maps.palette(17)
    shown = np.repeat(colours[[0] * 10 + [1] * 10][None], 20, axis=0)
    exact = shown.copy()
    shown[0, 9:11] = (130, 65, 20)  # the colour of a class, on two pixels of 400
    assert len(np.unique(maps.rgb_to_ids(shown))) == 3
    read = read_back("classes", shown)
    assert set(np.unique(maps.rgb_to_ids(read))) == {0, 1}
    assert np.mean(read == exact) > 0.99
    grey = np.full((4, 4, 3), 3, np.uint8)
    assert not read_back("depth", grey).any()
    assert read_back("picture", grey) is grey


def test_answers_are_scored_beside_them(sentences, vqgan):
    engine = Knowing(sentences)
    evaluator = AnswersEvaluator(sentences, max_sentences=6, controls=True, batch_size=4)
    result = evaluator.run(Subject(engine, vqgan))
    pairs = {n.split("/")[1]: v for n, v in result.items() if n.startswith("p: image -> thing/")}
    assert (pairs["sentences"], pairs["metric"], pairs["better"]) == (6, "psnr", "more")
    assert pairs["model"] == pytest.approx(100)  # it knows the answers
    assert pairs["copy"] < 100
    assert pairs["nearer_than_copy"] == 6
    # With another's query or shuffled answers, the prompt is none that it knows.
    assert pairs["control_other_query"] < 100
    assert pairs["control_shuffled"] < 100
    assert result["walks: next frame/model"] == pytest.approx(100)
    assert "walks: next frame/nearest" not in result
    assert "walks: next frame/control_shuffled" not in result
    assert engine.asked == 3 * 6 + 4


def test_one_number_stands_for_a_score():
    assert headline("edges", {"precision": Mean(1.0, 2.0), "recall": Mean(1.0, 1.0)}) == (
        pytest.approx(2 / 3)
    )
    assert headline("picture", {"mse": Mean(0.02, 2.0)}) == pytest.approx(20)
    assert headline("picture", {"mse": Mean(0.0)}) == 100
    assert headline("depth", {"absrel": Mean(0.3, 2.0), "mse": Mean(1.0)}) == pytest.approx(0.15)


def test_a_study_finds_the_best_way(sentences, vqgan):
    config = StudyConfig(temperatures=(0.3, 0.9), top_ps=(1.0,), candidates=4, max_sentences=8)
    assert len(config.ways()) == 1 + 2 * 5
    done = study(sentences, Subject(Knowing(sentences), vqgan), config)
    assert done.default.temperature == 0  # it draws without noise when greedy
    assert done.results["default"] == "greedy"
    assert done.results["sentences_too_few"] == []
    task = done.results["tasks"]["p: image -> thing"]
    assert (task["sentences"], task["metric"], task["chosen"]) == (4, "psnr", "greedy")
    cold, hot = (task["reporting"][f"temperature {t}, top-p 1"] for t in (0.3, 0.9))
    assert hot < cold < task["reporting"]["greedy"]
    likeliest = task["reporting"]["likeliest of 4, temperature 0.3, top-p 1"]
    assert cold < likeliest
    text = as_markdown(done.results)
    assert "Best over all tasks: **greedy**" in text
    assert "| p: image -> thing | 4 | psnr | greedy | 100 | 100 | 100 |" in text


def test_too_few_sentences_are_refused(sentences, vqgan):
    with pytest.raises(UserError, match="none with 4 held-out sentences"):
        study(sentences[:3], Subject(Knowing(sentences), vqgan), StudyConfig())
    with pytest.raises(UserError, match="candidates is 1"):
        StudyConfig(candidates=1)


def test_a_good_a_middling_and_a_bad_answer_are_drawn(sentences, vqgan, tmp_path):
    evaluator = AnswersEvaluator(sentences)
    answered = evaluator.answer(Subject(Knowing(sentences[:4]), vqgan))
    shown = show_sentences(answered, tmp_path)
    task = "p: image -> thing"
    assert shown[f"{task}/shown"] == "p-image-thing.png"
    assert shown[f"{task}/best"] == pytest.approx(100)  # one of those it knows
    assert shown[f"{task}/worst"] <= shown[f"{task}/median"] <= shown[f"{task}/best"]
    with Image.open(tmp_path / "p-image-thing.png") as picture:
        assert picture.width > 9 * 96
