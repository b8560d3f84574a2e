"""The management command of tts: `talk` speaks texts through the server, as a device does."""
