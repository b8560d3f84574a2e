"""Admin pages that show facts of several apps, so that none of these apps can have them.

`patients` is the list and the page of patients, with their usage and incidents. `tokens` are the API tokens.
"""

from voicecare.admin.overview import patients, tokens

__all__ = ["patients", "tokens"]
