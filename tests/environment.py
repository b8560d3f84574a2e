"""Loaded by pytest before the settings are (`-p tests.environment`): a data directory for this run alone, no real
key, and an S3 server where the phrases are to be kept in S3 and nobody has named one. Of several runs side by side
(pytest-xdist) each has its own, and a database of Redis for itself: REDIS_URL names the last of them.
"""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

folder = tempfile.mkdtemp(prefix="voicecare-tests-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)
os.environ["VOICECARE_DATA_DIR"] = folder
os.environ.pop("ELEVENLABS_API_KEY", None)  # a test never speaks to the real provider

if redis_url := os.environ.get("REDIS_URL"):
    base_url, _, database = redis_url.rpartition("/")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    os.environ["REDIS_URL"] = f"{base_url}/{int(database) - int(worker)}"

if os.environ.get("PHRASE_STORE") == "s3" and "AWS_S3_ENDPOINT_URL" not in os.environ:
    from tests.services import S3Process

    s3 = S3Process()
    atexit.register(s3.__exit__, None, None, None)
    os.environ.update(s3.environment)

# A busy machine is no finding, and what is found in one run is to be found in the next.
settings.register_profile("voicecare", deadline=None, database=None, derandomize=True)
settings.load_profile("voicecare")
