"""Values that the rows, the device protocol and the devices share. Knows nothing of Django."""

SERVER_PREFIX = "srv-"
"""Ids of speech that the server starts begin with this; a device may not use it for its own."""
