"""What a hostile prompt or model would write, and how a test sees that none of it ran or was fetched.

Every test of a tab says it in prompts and has it in answers: the echo repeats it, the scribe is made to write it.
"""

from __future__ import annotations

from playwright.sync_api import Page

from tests.playground.driver import PlaygroundPage

ELSEWHERE = "http://203.0.113.7"
"""A host that nobody has (RFC 5737)."""

ATTACKS = {
    "scripts": "<script>window.ran=1</script><img src=x onerror=\"window.ran=1\"><svg onload='window.ran=1'></svg>",
    "handlers": "<details open ontoggle=window.ran=1>x</details><input autofocus onfocus=window.ran=1>"
    "<a href=javascript:window.ran=1>a</a> [click](javascript:window.ran=1) [data](data:text/html,<script>1</script>)",
    "images": f"![pixel]({ELSEWHERE}/p.png) ![ref][there] [![linked]({ELSEWHERE}/l.png)]({ELSEWHERE}/)\n\n"
    f"[there]: {ELSEWHERE}/r.png",
    "frames": f"<iframe src={ELSEWHERE}/f></iframe><img src={ELSEWHERE}/i.png><video src={ELSEWHERE}/v></video>"
    f"<object data={ELSEWHERE}/o></object><link rel=stylesheet href={ELSEWHERE}/s.css><base href={ELSEWHERE}/>"
    f"<style>@import url({ELSEWHERE}/s.css);body{{display:none}}</style>"
    f"<meta http-equiv=refresh content=0;url={ELSEWHERE}>",
    "code": f"`` ` <img src={ELSEWHERE}/span.png> ``` ` and\n\n    ```\n<img src={ELSEWHERE}/in.png>\n    ```\n\n"
    f"> ~~~\n<svg onload=window.ran=1>\n\n```html\n<img src={ELSEWHERE}/fence.png onerror=window.ran=1>\n```",
    # Code in the eyes of one reader of Markdown and not of another.
    "half code": f"\\`<img src={ELSEWHERE}/1.png>` ```a`\n<img src={ELSEWHERE}/2.png>\n```\n\n1. a\n\n   ```\n"
    f"<img src={ELSEWHERE}/3.png>\n\n$$ x\n```\n$$\n<img src={ELSEWHERE}/4.png>\n```\n\n"
    f"> ```\n<img src={ELSEWHERE}/5.png>\n\n| ` | b |\n|---|---|\n| ` | <img src={ELSEWHERE}/6.png> ` |\n\n"
    f"<!-- ` --> <img src={ELSEWHERE}/7.png> `",
    "templates": "${window.ran=1} {{constructor.constructor('window.ran=1')()}} &#60;img src=x onerror=ran=1&#62;",
    "mathematics": f"$$\\href{{javascript:window.ran=1}}{{x}} \\includegraphics{{{ELSEWHERE}/t.png}}$$ "
    f"\\(\\html@mathml{{<img src={ELSEWHERE}/k.png>}}{{y}}\\) $$<img src={ELSEWHERE}/d.png onerror=window.ran=1>$$",
    "diagrams": "```mermaid\ngraph TD\n"
    f'A["<img src={ELSEWHERE}/m.png onerror=window.ran=1>"] --> B\nclick A "javascript:window.ran=1"\n```\n\n'
    f'- ~~~ Mermaid\n  flowchart TD\n  A@{{ img: "{ELSEWHERE}/shape.png", label: "x" }}\n  ~~~',
}

SCRIPT = ATTACKS["scripts"]
"""One line of it."""
ALL = "\n\n".join(ATTACKS.values())


def unharmed(tab: PlaygroundPage) -> None:
    """Nothing ran, nobody was asked but the page's own server, and the console has no error."""
    assert harm(tab.page) == []
    assert tab.page.title() == "Model playground"
    assert tab.hosts == {tab.url.split("/")[2]}
    assert tab.complaints == []


def harm(page: Page) -> list[str]:
    """What of it took effect in the page or in any frame of it; requests and errors are the driver's to tell."""
    found = [f"a script ran in {frame.url or 'a frame'}" for frame in page.frames if frame.evaluate("'ran' in window")]
    alive = page.evaluate(
        """host => [...document.querySelectorAll('img, script, iframe, video, object, link, base, style, meta, a')]
            .filter(one => !one.hasAttribute('srcdoc'))
            .filter(one => [...one.attributes].some(part => part.name.startsWith('on')
                || (part.value.includes(host) && one.tagName !== 'A') || /^\\s*javascript:/i.test(part.value)))
            .map(one => one.outerHTML.slice(0, 200))""",
        ELSEWHERE,
    )
    return [*found, *alive]
