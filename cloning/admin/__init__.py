"""The admin pages of voice clones and of voices.

`clones` registers clone jobs. `voices` registers the voices, which belong to `voicecare.patients`, here, because their
pages read the provider. `voice_columns` and `voice_filters` are the columns and the filters of the list of voices.
"""

from cloning.admin import clones, voices

__all__ = ["clones", "voices"]
