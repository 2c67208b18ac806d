"""The page itself, in Gradio, and what its events call. Pictures travel inside messages, never as files."""

import base64
import binascii
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.themes import Base
from starlette.middleware import Middleware

from lvm_jax.demo import view
from lvm_jax.demo.refusals import LOOPBACK, MAX_FILES_BYTES, Guard
from lvm_jax.demo.studio import MAX_CANDIDATES, Example, Reply, Strip, Studio, moved, removed
from lvm_jax.errors import UserError
from lvm_jax.inference.defaults import Defaults
from lvm_jax.inference.sampling import Sampling

_HERE = Path(__file__).parent
_SECONDS_KEPT = 3600  # how long the server keeps the state of a page left open
_SESSIONS = 8
_QUEUE = 16
_CLICKED = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { index: Number(button.dataset.index) });
});
"""
_BUSY = view.notice(
    "Drawing. The first time with as many images takes a few seconds longer.", "busy"
)


@dataclasses.dataclass(frozen=True)
class Desk:
    """The state of one open page.

    Attributes:
      strip: the prompt.
      candidates: the latest answers.
      example: the example that the strip is, as long as it is unchanged.
      replies: the latest answers to the example's own query and to another one.
    """

    strip: Strip = ()
    candidates: Strip = ()
    example: Example | None = None
    replies: tuple[Reply, Reply] | None = None


def build(
    studio: Studio, examples: Sequence[Example], drawing: Defaults, model: str, data: str
) -> gr.Blocks:
    """Builds the page.

    Args:
      studio: answers the prompts.
      examples: prompts to start from.
      drawing: how answers are drawn at first.
      model, data: text of the label.
    """

    def act(function: Callable[..., Desk]) -> Callable[..., tuple[Desk, str, str, str, str]]:
        """Makes a handler that redraws the page; a UserError becomes a notice and leaves the desk as it was."""

        def handler(desk: Desk, *values: Any) -> tuple[Desk, str, str, str, str]:
            message = ""
            try:
                desk = function(desk, *values)
            except UserError as error:
                message = str(error)
            return desk, view.notice(message), *drawn(desk)

        return handler

    def drawn(desk: Desk) -> tuple[str, str, str]:
        truth = desk.example.truth if desk.example else ()
        candidates = view.candidates_row(desk.candidates, truth)
        return view.strip_table(desk.strip, studio), candidates, view.swapped_rows(desk.replies)

    def upload(desk: Desk, event: Mapping[str, Any]) -> Desk:
        if "refused" in event:
            raise UserError(
                f"{event['refused'] / 2**20:.0f} MB at once: at most {MAX_FILES_BYTES >> 20} MB; drop fewer or smaller "
                "pictures"
            )
        room = studio.max_prompt - len(desk.strip)
        files = event["files"]
        if len(files) > room:
            raise UserError(f"{len(files)} pictures: there is room for {room}; drop fewer")
        items = studio.tokenise([(file["name"], _from_base64(file["content"])) for file in files])
        return Desk(studio.add(desk.strip, items))

    def change(desk: Desk, event: Mapping[str, Any]) -> Desk:
        if event["do"] == "clear":
            return Desk()
        index = int(event["index"])
        if event["do"] == "remove":
            return Desk(removed(desk.strip, index))
        return Desk(moved(desk.strip, index, {"left": -1, "right": 1}[event["do"]]))

    def start_from(desk: Desk, event: Mapping[str, Any]) -> Desk:
        example = examples[int(event["index"])]
        return Desk(example.strip, example=example)

    def append(desk: Desk, event: Mapping[str, Any]) -> Desk:
        item = desk.candidates[int(event["index"])]
        return Desk(studio.add(desk.strip, (item,)))

    def answer(
        desk: Desk,
        candidates: float,
        temperature: float,
        top_k: float,
        top_p: float,
        seed: float | None,
    ) -> Desk:
        sampling = Sampling(temperature, int(top_k), top_p, drawing.min_p)
        made = studio.next_images(desk.strip, int(candidates), sampling, int(seed or 0))
        return dataclasses.replace(desk, candidates=made)

    def swap(
        desk: Desk,
        candidates: float,
        temperature: float,
        top_k: float,
        top_p: float,
        seed: float | None,
    ) -> Desk:
        if desk.example is None:
            raise UserError(
                "the prompt is no example: start from one of (image, answer) pairs, whose query can be swapped"
            )
        sampling = Sampling(temperature, int(top_k), top_p, drawing.min_p)
        replies = studio.swapped(desk.example, int(candidates), sampling, int(seed or 0))
        return dataclasses.replace(desk, replies=replies)

    with gr.Blocks(
        title="Visual prompts", analytics_enabled=False, delete_cache=(600, 600)
    ) as page:
        desk = gr.State(Desk(), time_to_live=_SECONDS_KEPT)
        gr.HTML(view.heading(), apply_default_css=False)
        shelf = gr.HTML(
            view.examples_row(examples),
            js_on_load=_CLICKED,
            apply_default_css=False,
            visible=bool(examples),
        )
        script = (_HERE / "page.js").read_text().replace("MAX_REQUEST_FILES", str(MAX_FILES_BYTES))
        strip = gr.HTML(
            view.strip_table((), studio),
            js_on_load=script,
            apply_default_css=False,
            elem_id="prompt",
        )
        message = gr.HTML("", apply_default_css=False, elem_id="message")
        with gr.Row(elem_id="controls"):
            values = _sampling(studio, drawing)
        with gr.Row(elem_id="buttons"):
            ask = gr.Button("Next image", variant="primary", elem_id="ask")
            ask_both = gr.Button("Swap the query", elem_id="swap")
        answers = gr.HTML("", js_on_load=_CLICKED, apply_default_css=False, elem_id="answers")
        swapped = gr.HTML("", apply_default_css=False, elem_id="swapped")

        gr.HTML(view.label(model, data), apply_default_css=False)

        outputs = [desk, message, strip, answers, swapped]
        settings: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_id": "model",
            "concurrency_limit": 1,
        }
        # Gradio finds the argument for the event's data by its annotation, so the handlers need one of that type.
        for listen, function in (
            (strip.upload, upload),
            (strip.click, change),
            (shelf.click, start_from),
            (answers.click, append),
        ):
            listen(_with_event(act(function)), [desk], outputs, **settings)
        busy = ask.click(lambda: ("", _BUSY), None, [message, answers], **settings)
        busy.then(act(answer), [desk, *values], outputs, **settings)
        busy = ask_both.click(lambda: ("", _BUSY), None, [message, swapped], **settings)
        busy.then(act(swap), [desk, *values], outputs, **settings)
    return page


def launch(page: gr.Blocks, host: str, port: int) -> None:
    """Serves the page until Ctrl-C.

    Args:
      page: from `build`.
      host: the address to listen on; LOOPBACK reaches this machine only.
      port: 0 takes the first free one from 7860.

    Raises:
      UserError: the port is taken, or the host is not an address of this machine.
    """
    # On another address the names that people use for this machine are unknown, so the guard lets any name pass.
    hosts = LOOPBACK if host in LOOPBACK else ()
    page.queue(max_size=_QUEUE, default_concurrency_limit=1, api_open=False)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port or None,
            share=False,
            inbrowser=False,
            quiet=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=0,
            state_session_capacity=_SESSIONS,
            app_kwargs={"middleware": [Middleware(Guard, hosts=hosts)]},
            theme=_theme(),
            css_paths=[_HERE / "page.css"],
            prevent_thread_lock=True,
        )
    except OSError as error:  # no free port
        raise UserError(
            f"the page cannot listen on {host}, port {port or 'from 7860 on'}: name another --port"
        ) from error
    print(f"open {url}")
    page.block_thread()


def _with_event(handler: Callable[..., Any]) -> Callable[..., Any]:
    def handle(desk: Desk, event: gr.EventData) -> Any:
        return handler(desk, event._data)

    return handle


def _from_base64(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise UserError("a picture arrived damaged: drop it again") from error


def _sampling(studio: Studio, drawing: Defaults) -> list[Component]:
    """The controls, in the order of the arguments of `answer` and `swap`."""
    codes = len(studio.colours_K3)
    candidates = min(drawing.candidates, MAX_CANDIDATES)
    return [
        gr.Slider(1, MAX_CANDIDATES, candidates, step=1, label="Candidates"),
        gr.Slider(0, 2, drawing.temperature, step=0.05, label="Temperature"),
        gr.Slider(0, codes, drawing.top_k, step=1, label="Top-k (0 all)"),
        gr.Slider(0.05, 1, drawing.top_p, step=0.05, label="Top-p"),
        gr.Number(0, label="Seed", precision=0, minimum=0),
    ]


def _theme() -> Base:
    """System fonts, and the colours of page.css."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return Base(font=sans, font_mono=["ui-monospace", "monospace"]).set(
        **{
            f"{name}{dark}": f"var(--{colour})"
            for dark in ("", "_dark")
            for name, colour in _COLOURS.items()
        }
    )


# Gradio's variables -> those of page.css, which differ for light and dark.
_COLOURS = {
    "body_background_fill": "paper",
    "body_text_color": "ink",
    "body_text_color_subdued": "soft",
    "background_fill_primary": "paper",
    "background_fill_secondary": "card",
    "block_background_fill": "paper",
    "block_label_text_color": "soft",
    "block_title_text_color": "ink",
    "block_info_text_color": "soft",
    "border_color_primary": "line",
    "block_border_color": "line",
    "input_background_fill": "card",
    "input_border_color": "line",
    "slider_color": "accent",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent",
    "button_primary_text_color": "paper",
    "button_primary_border_color": "accent",
    "button_secondary_background_fill": "card",
    "button_secondary_background_fill_hover": "card",
    "button_secondary_text_color": "ink",
    "button_secondary_border_color": "line",
}
