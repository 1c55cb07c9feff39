from __future__ import annotations

import subprocess
import sys

import pytest

WATCHED = """
import sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and str(args[0]).endswith(".pyi") and opened.append(args[0]))
from gateway_playground.library import import_gradio
import_gradio()
import gradio
assert gradio.Blocks and gradio.Chatbot
print(opened)
"""


@pytest.mark.slow
def test_gradio_is_imported_without_a_look_at_files_for_editors() -> None:
    child = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout.strip()) == (0, "[]"), child.stderr
