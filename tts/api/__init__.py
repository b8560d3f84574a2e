"""The REST API of speech and conversations.

`views` and `serializers` are the endpoints of `urls`. `streaming` runs the speech pipeline for an HTTP response.

May import everything of tts but devices.
"""
