"""OpenAI's Files and Batches: requests handed in as a file, answered when there is time, told as a file.

Knows the gateway's store, and models only as an ASGI app that answers one request.
"""
