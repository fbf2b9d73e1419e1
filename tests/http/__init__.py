"""The HTTP side of a server."""
