"""From text to audio: the speech pipeline and its sources.

`pipeline.speak` speaks one text into an `AudioSink` (`sink`). The audio comes from the sources in `sources`: the phrase
cache, the provider and the offline voice. `admission`, `budget` and `pacing` decide when a segment may be requested.
`probe` finds out whether a provider that was down works again. `response_speeches` limits and ends the speeches of HTTP
responses. `dependencies` lists the objects that these modules need.

May import cache, resilience, conversations, text, speech and recorder of tts, but neither devices nor protocol.
"""
