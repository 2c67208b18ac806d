"""Writes the page of a run."""

import uuid

from etils import epath

from lvm_jax.reporting import html, sections
from lvm_jax.reporting.charts import Chart, Series
from lvm_jax.reporting.inputs import RunFiles, column


def write_report(workdir: epath.PathLike) -> epath.Path:
    """Writes WORKDIR/report.html, one file with everything in it, and the loss curves as PNG in WORKDIR/figures/.

    Returns:
      the path of the page.

    Raises:
      UserError: a step has not been run; the message names its command.
    """
    files = RunFiles.load(workdir)
    body = "".join(
        (
            sections.summary(files),
            sections.corpus(files),
            sections.tokenizer(files),
            sections.decoder(files),
            sections.in_context(files),
            sections.prompts(files),
            sections.compared(files),
            sections.setup(files),
        )
    )
    subtitle = f"Every number and picture comes from the files of the run in {files.workdir}."
    content = html.page("A large vision model, from pixels to a visual prompt", subtitle, body)
    path = files.workdir / "report.html"
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_text(content)
    partial.replace(path)
    figures = files.workdir / "figures"
    figures.mkdir(exist_ok=True)
    (figures / "decoder_loss.png").write_bytes(sections.loss_chart(files).png())
    curve = Series("training", *column(files.tokenizer, "train/loss"))
    (figures / "tokenizer_loss.png").write_bytes(Chart("step", "loss", [curve]).png())
    return path
