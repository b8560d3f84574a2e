"""Text and its segments: the units in which speech is requested, counted and paced.

`stream.TextStream` holds the text of one speech while it is written and read. `segmenter` cuts a text into segments
(`Segmenter`, `split`) and brings phrases into a normal form (`normalise`). `abbreviations` is the language data for
that. `speakable` decides whether a text has anything to speak.

Imports no other package of this project.
"""
