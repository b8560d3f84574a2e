"""The REST API of speech and conversations.

`urls` has the routes, `views` the endpoints and `serializers` their bodies. `streaming` runs the speech pipeline for an
HTTP response. May import everything of tts but devices.
"""
