"""Clone jobs: from an uploaded recording to the voice of a patient.

`submission.submit` accepts a recording. `runner.run` makes one attempt to create its voice, and `runner.retry` restarts
a failed job. `attempts` runs attempts in threads. `activation` gives the new voice to the patient. This package imports
all other parts of cloning except `voices` and `api`.
"""
