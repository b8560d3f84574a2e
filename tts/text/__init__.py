"""Text and its segments: the units in which speech is requested, counted and paced.

`stream.TextStream` holds the text of one speech while it is written and read. `segmenter` cuts it (`Segmenter`,
`split`) and gives the normal form of known phrases (`normalise`). `abbreviations` are its language data.

Imports nothing else of ours.
"""
