"""Names for screen readers where Gradio gives none. Scripts of the page; knows no tab."""

from __future__ import annotations

NAME_EDITORS = """
() => {
  // Gradio calls every code editor the same: each takes the name of its block.
  let rounds = 0;
  const name = () => {
    document.querySelectorAll(".room .cm-content").forEach((editor) => {
      const label = editor.closest(".block")?.querySelector("label, [data-testid='block-label']");
      const text = label?.textContent.trim();
      if (text && editor.getAttribute("aria-label") !== text) editor.setAttribute("aria-label", text);
    });
    if (++rounds < 20) setTimeout(name, 150);
  };
  name();
}
"""
