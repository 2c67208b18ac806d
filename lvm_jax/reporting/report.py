"""Writes the page of a run."""

from etils import epath

from lvm_jax import files
from lvm_jax.reporting import html, sections
from lvm_jax.reporting.charts import Chart, Series
from lvm_jax.reporting.inputs import RunFiles, column


def write_report(workdir: epath.PathLike) -> epath.Path:
    """Writes WORKDIR/report.html, a self-contained page, and the loss curves as PNG in WORKDIR/figures/.

    Returns:
      the path of the page.

    Raises:
      UserError: a result is missing; the message says which command writes it.
    """
    run = RunFiles.load(workdir)
    blocks = (
        sections.depends(run),
        sections.good_and_bad(run),
        *sections.summary(run),
        sections.by_task(run),
        sections.corpus(run),
        sections.tokenizer(run),
        sections.decoder(run),
        sections.in_context(run),
        sections.prompts(run),
        sections.compared(run),
        sections.setup(run),
    )
    subtitle = f"Every number and picture comes from the files of the run in {run.workdir}."
    content = html.page("A large vision model, from pixels to a visual prompt", subtitle, blocks)
    path = run.workdir / "report.html"
    files.write(path, content)
    figures = run.workdir / "figures"
    figures.mkdir(exist_ok=True)
    files.write(figures / "decoder_loss.png", sections.loss_chart(run).png())
    curve = Series("training", *column(run.tokenizer, "train/loss"))
    files.write(figures / "tokenizer_loss.png", Chart("step", "loss", [curve]).png())
    return path
