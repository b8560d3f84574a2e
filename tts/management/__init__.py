"""The management command of tts: `talk` acts as a device on the command line."""
