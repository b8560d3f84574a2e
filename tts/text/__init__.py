"""Text and its segments: the units in which speech is requested, counted and paced.

`spoken_form.Pronunciation` says how a segment is said: without markup and emoji (`markup`), with numbers in words
(`dates_and_times`, `phone_numbers`, `quantities`), and with the spoken forms of the `lexicon`.

`stream.TextStream` holds the text of one speech while it is written and read. `segmenter` cuts a text into segments
(`Segmenter`, `split`) and brings phrases into a normal form (`normalise`). `abbreviations` is the language data for
that. `speakable` decides whether a text has anything to speak.

Imports no other package of this project.
"""
