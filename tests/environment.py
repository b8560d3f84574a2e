"""Loaded by pytest before the settings are (`-p tests.environment`): a data directory for this run alone, no real
key.
"""

import atexit
import os
import shutil
import tempfile

folder = tempfile.mkdtemp(prefix="voicecare-tests-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)
os.environ["VOICECARE_DATA_DIR"] = folder
os.environ.pop("ELEVENLABS_API_KEY", None)  # a test never speaks to the real provider
