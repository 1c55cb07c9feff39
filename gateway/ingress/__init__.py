"""The two doors: a chain of plain ASGI apps from the client's request to a target's app. Knows no Ray and no engine."""
