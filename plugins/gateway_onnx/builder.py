"""The child of a conversion: ONNX Runtime GenAI's model builder, as its own command runs it."""

import runpy

from gateway.importing import import_transformers

if __name__ == "__main__":
    import_transformers()
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
