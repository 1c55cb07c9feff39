"""model-gateway: one gateway in front of many models. This package is the core and imports no engine and no UI."""

__version__ = "0.1.0"
