r"""Frame prediction on folders of videos: perplexity of the last frame against the number of frames before it.

  python experiments/evaluate_videos.py --tokenizer=DIR --model=DIR --data=KINETICS/val --output=OUT

The protocol is that of the paper's Figure 7: 15 frames of context and one to predict, taking every 8th frame from a
random start, squashed to the tokenizer's square. Kinetics' folders are CLASS/VIDEO. OUT/videos.json, OUT/videos.md and
OUT/videos.png have the curve, averaged over examples (as published) and over the corpus. Videos that are too short or
cannot be decoded are skipped and counted.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags
from etils import epath
from tqdm import tqdm

from data_pipelines.sources.base import BadItem
from data_pipelines.sources.videos import VideoFolder
from lvm_jax import cli, files
from lvm_jax.data.splits import spread
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.in_context import InContextEvaluator
from lvm_jax.evaluation.lvm.models import load_pair
from lvm_jax.evaluation.lvm.readers.folders import VIDEO_EXTENSIONS, class_folders
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.lvm.video_clips import tokenize_clips
from lvm_jax.parallel import runtime
from lvm_jax.reporting.charts import Chart, Series
from lvm_jax.reporting.markdown import as_markdown
from lvm_jax.reporting.words import context_curve

_TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder of the VQGAN", required=True)
_MODEL = flags.DEFINE_string("model", None, "folder of the decoder", required=True)
_DATA = flags.DEFINE_string("data", None, "class folders of videos", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go", required=True)
_VIDEOS = flags.DEFINE_integer(
    "videos", 256, "videos, evenly spread over the classes; 0 takes all", lower_bound=0
)
_FRAMES = flags.DEFINE_integer("frames", 16, "the last is predicted", lower_bound=2)
_STRIDE = flags.DEFINE_integer("stride", 8, "takes one frame in this many", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the first frame of each clip")
_BATCH = flags.DEFINE_integer("batch_size", 4, "clips at once", lower_bound=1)
_LONGEST = 16  # clips of a video that are decoded; later frames are ignored


def main() -> None:
    """Reads, tokenizes and scores the clips."""
    runtime.initialize()
    vqgan, model = load_pair(_TOKENIZER.value, _MODEL.value)
    longest = model.config.max_position_embeddings // vqgan.tokens_per_image
    if _FRAMES.value > longest:
        raise UserError(f"--frames is {_FRAMES.value}: the model reads {longest} images, lower it")
    root, output = epath.Path(_DATA.value), epath.Path(_OUTPUT.value)
    clips = tokenize_clips(
        vqgan, _videos(root, vqgan.config.resolution), _FRAMES.value, _SEED.value
    )
    left_out = {"unreadable": clips.unreadable, "too_short": clips.too_short}
    if not clips.sentences:
        raise UserError(
            f"{root} has no video of {_FRAMES.value} frames at a stride of {_STRIDE.value} ({clips.unreadable} are "
            f"unreadable, {clips.too_short} too short): lower one"
        )
    scorer = Scorer(model, vqgan.codebook_size, batch_size=_BATCH.value)
    asked = {"frames": _FRAMES.value, "stride": _STRIDE.value, "seed": _SEED.value, **left_out}
    results = asked | InContextEvaluator(clips.sentences).run(scorer)
    output.mkdir(parents=True, exist_ok=True)
    lines = [
        Series(label, *context_curve(results, "sequential", name), marker=True)
        for label, name in (
            ("mean over examples", "mean_example_perplexity"),
            ("over all tokens", "corpus_perplexity"),
        )
    ]
    chart = Chart("frames of context", "perplexity of the last frame", lines)
    files.write(output / "videos.png", chart.png())
    files.write(output / "videos.md", as_markdown({"videos": results}))
    files.write_json(output / "videos.json", results)
    print(f"the results are in {output / 'videos.md'}")


def _videos(
    root: epath.Path, short_side: int
) -> Iterator[tuple[str, int, Sequence[np.ndarray] | None]]:
    """(key, index, frames) of the chosen videos; frames are None if they cannot be decoded."""
    found = class_folders(root, VIDEO_EXTENSIONS)
    source = VideoFolder(str(root), _LONGEST * _FRAMES.value, _STRIDE.value, short_side=short_side)
    for index in tqdm(spread(len(found), _VIDEOS.value).tolist(), desc="videos", unit="video"):
        key = str(found[index][0].relative_to(root))
        try:
            yield key, index, source.load(key)["frame"]
        except BadItem:
            yield key, index, None


if __name__ == "__main__":
    cli.run(main)
