"""The page in a real browser, started as a user starts it, and what its command says to a mistake."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvm_jax.demo.drops import Dropped
from lvm_jax.demo.refusals import MAX_FILES_BYTES

ROOT = Path(__file__).parents[2]
# Runs the script, and notes every address that it binds or connects to, its own page's aside.
AUDITED = """
import os, runpy, sys
def note(event, arguments):
    if event in ("socket.bind", "socket.connect") and isinstance(arguments[1], tuple):
        if event == "socket.bind" or arguments[1][0] != "127.0.0.1":
            with open(os.environ["GRADIO_TEMP_DIR"] + "/addresses", "a") as file:
                file.write(event[7:] + str(arguments[1]).replace(" ", "") + "\\n")
sys.addaudithook(note)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def start(*flags: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-u", "-c", AUDITED, str(ROOT / "experiments/demo.py"), *flags]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} after {seconds} s"
        time.sleep(0.1)


@pytest.mark.slow
def test_without_a_model_it_says_what_to_run(tmp_path):
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    flags = (f"--workdir={tmp_path}", f"--release={tmp_path}/none")
    process = start(*flags, GRADIO_TEMP_DIR=str(tmp_path))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert [line for line in output.splitlines() if line.startswith("error:")] == [
        f"error: no trained model in {tmp_path}: run `make quickstart` first, or name another --workdir"
    ]


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(workdir, tmp_path):
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = (f"--workdir={workdir}", f"--release={tmp_path}/none", f"--port={port}")
        process = start(*flags, GRADIO_TEMP_DIR=str(tmp_path))
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"error: the page cannot listen on 127.0.0.1, port {port}: name another --port" in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def server(workdir, vary_run, unified_run, tmp_path_factory):
    """The address of a running page, and the folder in which Gradio would keep files."""
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = tmp_path_factory.mktemp("gradio")
    process = start(
        f"--workdir={workdir},{vary_run},{unified_run}",
        f"--release={workdir}/none",
        f"--port={port}",
        GRADIO_TEMP_DIR=str(files),
    )
    assert process.stdout is not None
    lines = []
    while not (lines and lines[-1].startswith("open ")):
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    try:
        yield f"http://127.0.0.1:{port}", files, port
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: $CHROMIUM, or what is on the PATH, or Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as p:
        path = path or p.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no browser: set CHROMIUM, or run `playwright install chromium`")
        opened = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(server, browser):
    """The page, freshly opened; what it asked for and what its console said are checked at the end."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    asked, said = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on(
        "console", lambda message: said.append(message.text) if message.type == "error" else None
    )
    tab.goto(server[0])
    tab.wait_for_selector(".drop")
    yield tab
    tab.close()
    context.close()
    assert asked
    assert {url for url in asked if not url.startswith((server[0], "data:", "blob:"))} == set()
    assert said == []


def drop(page, *files: tuple[str, bytes]) -> None:
    page.set_input_files(
        ".drop input",
        [{"name": n, "mimeType": "image/png", "buffer": content} for n, content in files],
    )


def columns(page, count: int):
    page.wait_for_function(f"document.querySelectorAll('.strip li').length === {count}")
    return page.locator(".strip li")


def pixels(image) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(fetched(image.get_attribute("src")))))


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return answer.read()


@pytest.mark.slow
def test_from_pictures_to_a_continued_strip(page, picture, studio):
    drop(page, ("a.png", picture(0)), ("b.png", picture(1)))
    shown = columns(page, 2)
    (a,) = studio.coder.of_files([Dropped("a.png", picture(0))])
    seen, codes = (
        pixels(shown.nth(0).locator("img").nth(1)),
        pixels(shown.nth(0).locator("img").nth(2)),
    )
    step = seen.shape[0] // a.seen_HWC.shape[0]
    assert (
        np.abs(seen[::step, ::step].astype(int) - a.seen_HWC).max() <= 1
    )  # another process, another rounding
    codes = codes[:: codes.shape[0] // len(studio.code_map(a))][
        :, :: codes.shape[1] // len(studio.code_map(a))
    ]
    assert np.mean(codes == studio.code_map(a)) > 0.9
    before = shown.nth(0).locator("img").nth(1).get_attribute("src")
    page.click("[data-do=right] >> nth=0")
    # What was clicked has the focus before the strip is drawn anew: only the picture says that it has moved.
    page.wait_for_function(
        "(src) => document.querySelectorAll('.strip li')[1].querySelectorAll('img')[1].src === src",
        arg=before,
    )
    page.wait_for_function("document.activeElement?.dataset?.do !== undefined")
    again = pixels(columns(page, 2).nth(1).locator("img").nth(1))
    assert np.array_equal(again, seen)
    page.click("[data-do=remove] >> nth=0")
    columns(page, 1)
    page.click("#ask")
    page.wait_for_selector(".candidates figure >> nth=4")
    assert page.locator(".candidates figure").count() == 4 + 1
    assert page.locator(".candidates .mean").inner_text() == "mean of 4"
    page.click("[aria-label='append candidate 2']")
    columns(page, 2)
    assert page.locator(".candidates").count() == 0
    page.click("[data-do=clear]")
    columns(page, 0)


@pytest.mark.slow
def test_an_example_shows_its_truth(page):
    page.click(".example >> nth=1")
    columns(page, 2)
    page.click("#ask")
    page.wait_for_selector(".candidates .truth")
    assert page.locator(".candidates .truth").inner_text() == "what the corpus has"
    page.click("#swap")
    page.wait_for_function("document.querySelector('.error')?.innerText.includes('second query')")
    assert page.locator(".swapped").count() == 0


@pytest.mark.slow
def test_another_query_is_answered_beside_the_own(page):
    page.click(".example >> nth=0")
    columns(page, 3)
    page.click("#swap")
    page.wait_for_selector(".swapped figure >> nth=7")
    assert "of their codes" in page.locator(".verdict").inner_text()
    page.click("[data-do=remove] >> nth=0")
    columns(page, 2)
    assert page.locator(".swapped").count() == 0
    page.click("#swap")
    page.wait_for_function("document.querySelector('.error')?.innerText.includes('no example')")


@pytest.mark.slow
def test_every_mistake_is_one_line_in_the_page(page, picture, bomb, tmp_path):
    def says(pattern: str) -> None:
        page.wait_for_function(
            "(p) => new RegExp(p).test(document.querySelector('.error')?.innerText)", arg=pattern
        )
        assert page.locator("[role=alert]").count() == 1
        assert page.locator(".strip li").count() == 0

    page.click("#ask")
    says("the strip has 0 images: drop at least 1")
    drop(page, ("bomb.png", bomb))
    says("bomb.png: 8000x8000 pixels exceed the limit of 40000000")
    drop(page, ("text.png", b"no picture"))
    says("text.png: cannot be decoded")
    drop(page, *[(f"{i}.png", picture(0)) for i in range(5)])
    says("5 pictures: there is room for 4")
    drop(page, ("<img src=x onerror=alert(1)>.png", b"no picture"))
    says("<img src=x onerror=alert\\(1\\)>.png: cannot be decoded")
    with (tmp_path / "big.png").open("wb") as big:
        big.truncate(MAX_FILES_BYTES + 1)
    page.set_input_files(".drop input", tmp_path / "big.png")
    says("48 MB at once: at most 48 MB")
    drop(page, ("good.png", picture(0)))
    columns(page, 1)
    assert page.locator("[role=alert]").count() == 0


def open_tab(page, title: str, shows: str) -> None:
    page.get_by_role("tab", name=title).click()
    page.wait_for_selector(f"{shows}:visible")


def says(page, pattern: str) -> None:
    page.wait_for_function(
        "(p) => [...document.querySelectorAll('.error')].some((e) => new RegExp(p).test(e.innerText))",
        arg=pattern,
    )


@pytest.mark.slow
def test_a_page_is_read_and_its_picture_swapped(page, picture):
    open_tab(page, "Read a page", ".sheets")
    page.click(".example:visible >> nth=1")
    page.wait_for_selector(".sheets figure")
    assert page.locator(".chip[aria-pressed=true]").inner_text() == "Describe it."
    page.click("#read")
    page.wait_for_selector(".reading .true")
    page.click("[data-copies]")
    assert page.locator("[data-copies]").inner_text() == "Copied"
    page.click("#swap-picture")
    page.wait_for_selector(".columns figure >> nth=2")
    page.fill(".question input", "Qué?")
    page.click("#read")
    says(page, "no token for")
    name = "<img src=x onerror=alert(1)>.pdf"
    bad = {"name": name, "mimeType": "application/pdf", "buffer": b"%PDF-1.4 cut"}
    page.set_input_files(".sheets .drop input", [bad])
    says(page, "alert\\(1\\)>.pdf: cannot be read")


@pytest.mark.slow
def test_an_example_is_painted_and_the_query_answered(page, picture):
    open_tab(page, "From examples", ".episode")
    file = {"name": "a.png", "mimeType": "image/png", "buffer": picture(0)}
    page.set_input_files("[data-place=example]", [file])
    page.set_input_files("[data-place=query]", [file])
    page.wait_for_selector(".episode figure.query")
    page.click("#answer")
    says(page, "example 1 has no mask")
    for tool in range(2):  # brush, rectangle
        page.click(f"[data-focus=tool{tool}]")
        page.wait_for_selector(f"[data-focus=tool{tool}][aria-pressed=true]")
        box = page.locator("canvas").bounding_box()
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 80)
        page.mouse.up()
        page.wait_for_selector("[data-do=clear-mask]")
        if not tool:
            page.click("[data-do=clear-mask]")
            page.wait_for_selector("[data-place=mask]", state="attached")
    page.click("#answer")
    page.wait_for_selector(".columns .pair img >> nth=1")
    page.click("#swap-examples")
    page.wait_for_function(
        "document.querySelector('.verdict')?.innerText.includes('without examples')"
    )
    page.click("[data-focus=question1]")
    page.fill("[data-do=caption]", "a disc")
    page.click("#answer")
    page.wait_for_selector(".columns pre")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen(server, browser, scheme):
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(server[0])
    tab.click(".example >> nth=1")
    columns(tab, 2)
    assert tab.evaluate("document.documentElement.scrollWidth") == 400
    for title, shows in (("Read a page", ".sheets"), ("From examples", ".episode")):
        # Where a tab does not fit, Gradio puts it behind a menu: open it while there is room.
        tab.set_viewport_size({"width": 1200, "height": 800})
        open_tab(tab, title, shows)
        tab.set_viewport_size({"width": 400, "height": 800})
        tab.click(".example:visible >> nth=0")
        tab.wait_for_selector(f"{shows} figure")
        assert tab.evaluate("document.documentElement.scrollWidth") == 400
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper)[:3])) < 60) == (scheme == "dark")
    context.close()


@pytest.mark.slow
def test_the_server_keeps_to_itself(server):
    url, files, port = server
    assert [path.name for path in files.rglob("*") if path.is_file()] == ["addresses"]
    assert set((files / "addresses").read_text().split()) == {f"bind('127.0.0.1',{port})"}
    for request, status in (
        (urllib.request.Request(f"{url}/gradio_api/upload", b"x", method="POST"), 405),
        (urllib.request.Request(f"{url}/gradio_api/file=/etc/passwd"), 404),
        (urllib.request.Request(url, headers={"Host": "evil.example"}), 421),
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code == status
        error.value.close()
    config = json.loads(fetched(f"{url}/config"))
    assert not config.get("analytics_enabled")
