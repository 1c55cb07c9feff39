"""OpenAI's Responses API in terms of chat completions, so the same on every engine, and what is kept of each response.
Knows bodies, events and one table; knows no request's way and no Ray."""
