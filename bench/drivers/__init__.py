"""The driver processes of the paths in C and of the Python client, and the msgpack server."""
