"""The page itself, in Gradio, and what its events call. Pictures travel inside messages, never as files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.themes import Base
from starlette.middleware import Middleware

from lvm_jax.demo import view
from lvm_jax.demo.drops import dropped_files
from lvm_jax.demo.refusals import LOOPBACK, MAX_FILES_BYTES, Guard
from lvm_jax.demo.tab import Action, Control, Slider, Tab, Upload, Whole
from lvm_jax.errors import BadData, UserError

_HERE = Path(__file__).parent
_SECONDS_KEPT = 3600  # how long the server keeps the state of a page left open
_SESSIONS = 8
_QUEUE = 16
# One model computes at a time, whichever tab asks.
_SETTINGS: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_id": "model",
    "concurrency_limit": 1,
}
# What is dropped or typed while something earlier is worked on waits for it; Gradio would forget it.
_EVERY: dict[str, Any] = {**_SETTINGS, "trigger_mode": "multiple"}


def build(tabs: Sequence[Tab], missing: Sequence[tuple[str, str]]) -> gr.Blocks:
    """Builds the page.

    Args:
      tabs: at least one.
      missing: name and words about each system that has none.
    """
    with gr.Blocks(
        title="Visual prompts", analytics_enabled=False, delete_cache=(600, 600)
    ) as page:
        gr.HTML(view.heading(), apply_default_css=False)
        if len(tabs) == 1:
            _add(tabs[0])
        else:
            with gr.Tabs():
                for tab in tabs:
                    with gr.Tab(tab.title):
                        _add(tab)
        gr.HTML(view.label(missing), apply_default_css=False, visible=bool(missing))
    return page


def _add(tab: Tab) -> None:
    """The elements of a tab, and what their events call."""
    script = (_HERE / "page.js").read_text().replace("MAX_REQUEST_FILES", str(MAX_FILES_BYTES))

    def html(value: str, part: str, **options: Any) -> gr.HTML:
        return gr.HTML(
            value, js_on_load=script, apply_default_css=False, elem_classes=[part], **options
        )

    desk = gr.State(tab.empty, time_to_live=_SECONDS_KEPT)
    gr.HTML(view.purpose(tab.purpose), apply_default_css=False)
    shelf = html(tab.examples, "shelf", visible=bool(tab.examples))
    prompt = html(tab.prompt(tab.empty), "prompt")
    with gr.Row(elem_classes=["controls"], visible=bool(tab.controls)):
        values = [_component(control) for control in tab.controls]
    with gr.Row(elem_classes=["buttons"]):
        buttons = [
            gr.Button(
                action.label, variant="secondary" if number else "primary", elem_id=action.name
            )
            for number, action in enumerate(tab.actions)
        ]
    message = html("", "message")
    answers = html(tab.answers(tab.empty), "answers")
    gr.HTML(view.label(tab.label), apply_default_css=False)

    drawn = [desk, message, prompt, answers]
    uploaded = _drawing(tab, lambda state, event: tab.upload(state, _upload(event)))
    prompt.upload(_with_event(uploaded), [desk], drawn, **_EVERY)
    for listen, function in (
        (prompt.click, tab.click),
        (answers.click, tab.click),
        (shelf.click, lambda state, event: tab.start_from(state, int(event["index"]))),
    ):
        listen(_with_event(_drawing(tab, function)), [desk], drawn, **_SETTINGS)
    # What is typed is not drawn again, nor is the prompt while a model computes: the user may be typing.
    prompt.input(_with_event(_tried(tab.click)), [desk], [desk, message], **_EVERY)
    for button, action in zip(buttons, tab.actions, strict=True):
        busy = view.notice(action.busy, "busy")
        shown = button.click(lambda busy=busy: busy, None, message, **_SETTINGS)
        outputs = [desk, message, answers]
        shown.then(_stepwise(tab, action), [desk, *values], outputs, **_SETTINGS)


def _tried(function: Callable[..., Any]) -> Callable[..., tuple[Any, str]]:
    """A handler that gives the next state; a mistake becomes a notice and leaves the state as it was."""

    def handle(desk: Any, *given: Any) -> tuple[Any, str]:
        try:
            return function(desk, *given), ""
        except (UserError, BadData) as error:
            return desk, view.notice(str(error))

    return handle


def _drawing(tab: Tab, function: Callable[..., Any]) -> Callable[..., tuple[Any, str, str, str]]:
    """The same, and what the state looks like."""

    def handle(desk: Any, *given: Any) -> tuple[Any, str, str, str]:
        desk, message = _tried(function)(desk, *given)
        return desk, message, tab.prompt(desk), tab.answers(desk)

    return handle


def _stepwise(tab: Tab, action: Action) -> Callable[..., Iterator[tuple[Any, str, str]]]:
    """A handler that shows the answers of every state on the way of an action."""

    def handle(desk: Any, *values: Any) -> Iterator[tuple[Any, str, str]]:
        try:
            for progress in action.run(desk, *values):
                desk = progress.desk
                yield desk, view.notice(progress.busy, "busy"), tab.answers(desk)
        except (UserError, BadData) as error:
            yield desk, view.notice(str(error)), tab.answers(desk)

    return handle


def _upload(event: Mapping[str, Any]) -> Upload:
    return Upload(event["place"], int(event["index"]), dropped_files(event))


def _component(control: Control) -> Component:
    match control:
        case Slider(label, low, high, value, step):
            return gr.Slider(low, high, value, step=step, label=label)
        case Whole(label, value):
            return gr.Number(value, label=label, precision=0, minimum=0)


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
    def handle(desk: Any, event: gr.EventData) -> Any:
        return handler(desk, event._data)

    return handle


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
