"""Management commands, and the data of the demo. Part of the composition root, so it may import every app."""
