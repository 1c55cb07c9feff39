"""The playground as an app: its options, its headers, its two ways of being mounted, and what it keeps shut."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import gateway_playground
from gateway.apps import AppContext, AppOffer
from gateway.errors import ConfigError, PluginError
from gateway.plugins import load
from gateway.tabs import PageContext, TabOffer
from gateway.types import ASGIApp, Receive, Scope, Send
from gateway_playground import options
from gateway_playground.app import build

CONTEXT = AppContext("http://127.0.0.1:9", "/playground")


def behind_a_prefix(app: ASGIApp) -> ASGIApp:
    """As Ray Serve mounts: `path` whole, `root_path` set."""

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/playground"}, receive, send)

    return server


def mounted(app: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/playground", app)])


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", follow_redirects=True)


@pytest.fixture(scope="module")
def app() -> ASGIApp:
    return build(CONTEXT)


def test_the_plugin_offers_one_app():
    offers: list[AppOffer] = []
    gateway_playground.register_apps(offers.append)
    assert [offer.name for offer in offers] == ["playground"]


@pytest.mark.parametrize("mount", [behind_a_prefix, mounted])
async def test_the_page_and_what_it_names_are_there(app: ASGIApp, mount: Callable[[ASGIApp], ASGIApp]):
    async with client(mount(app)) as http:
        page = await http.get("/playground/")
        assert page.status_code == 200
        assert '"root":"http://127.0.0.1/playground"' in page.text.replace(" ", "")
        assets = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page.text)
        assert len(assets) >= 2
        for path in [*assets, "theme.css", "config"]:
            assert (await http.get(f"/playground/{path}")).status_code == 200, path
        assert "fonts.googleapis.com" not in page.text + (await http.get("/playground/theme.css")).text


async def test_nobody_is_told_about_the_page(app: ASGIApp):
    async with client(behind_a_prefix(app)) as http:
        config = (await http.get("/playground/config")).json()
    assert config["analytics_enabled"] is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


async def test_every_answer_carries_the_policy(app: ASGIApp):
    async with client(behind_a_prefix(app)) as http:
        for path in ("/playground/", "/playground/theme.css", "/playground/nothing-here"):
            policy = (await http.get(path)).headers["content-security-policy"]
            assert "default-src 'self'" in policy and "img-src 'self' data: blob:" in policy


@pytest.mark.parametrize("mount", [behind_a_prefix, mounted])
@pytest.mark.parametrize("path", ["upload", "proxy=http://127.0.0.1/", "runs"])
async def test_what_the_page_has_no_use_for_is_shut(app: ASGIApp, mount: Callable[[ASGIApp], ASGIApp], path: str):
    async with client(mount(app)) as http:
        answer = await http.request("POST" if path == "upload" else "GET", f"/playground/gradio_api/{path}")
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "no such page"


async def test_the_title_is_a_choice_and_cannot_be_markup():
    async with client(
        behind_a_prefix(build(AppContext("http://127.0.0.1:9", "/playground", {"title": "A <b>"})))
    ) as http:
        config = (await http.get("/playground/config")).json()
        assert config["title"] == "A <b>"
        assert any("<h1>A &lt;b&gt;</h1>" in str(part["props"].get("value")) for part in config["components"])


def test_unknown_and_wrong_options_are_all_told():
    with pytest.raises(ConfigError) as caught:
        options.read({"titel": "x", "temperature": 3})
    lines = caught.value.message.splitlines()
    assert "playground: options.titel: unknown setting" in lines
    assert any(line.startswith("playground: options.temperature:") for line in lines) and len(lines) == 2


async def test_a_tab_that_cannot_be_built_shows_why_and_leaves_nothing_behind():
    def half_built(context: PageContext) -> None:
        import gradio as gr

        with gr.Row():
            button = gr.Button("of the broken tab")
            button.click(lambda: None)
            context.picker(label="of the broken tab")
            raise ValueError("no <such> thing")

    def sound(context: PageContext) -> None:
        import gradio as gr

        gr.Markdown("of the sound tab")

    tabs = (TabOffer("broken", "Broken", 5, half_built), TabOffer("sound", "Sound", 10, sound))
    async with client(behind_a_prefix(build(AppContext("http://127.0.0.1:9", "/playground", tabs=tabs)))) as http:
        config = (await http.get("/playground/config")).json()
    shown = json.dumps(config["components"])
    assert "This tab could not be built (ValueError: no &lt;such&gt; thing)" in shown
    assert "of the sound tab" in shown and "of the broken tab" not in shown
    titles = [part["props"]["label"] for part in config["components"] if part["type"] == "tabitem"]
    assert titles == ["Broken", "Sound"]
    ids = {part["id"] for part in config["components"]}
    assert all(set(event["inputs"]) | set(event["outputs"]) <= ids for event in config["dependencies"])


def test_our_own_tabs_come_by_the_hook():
    offers = load().tabs
    assert offers.brought_by["chat"] == "playground"
    with pytest.raises(PluginError, match=r"no tab 'nothing'; there are: .*chat"):
        offers.get("nothing", {})
