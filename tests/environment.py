"""Sets environment variables before pytest loads the settings (`-p tests.environment`).

Each run has its own data directory and no real API key. With PHRASE_STORE=s3 and no AWS_S3_ENDPOINT_URL it starts its
own S3 server. Each pytest-xdist worker has its own copy of these and its own Redis database. REDIS_URL names the
database of the first worker, and the other workers count down from it.
"""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

folder = tempfile.mkdtemp(prefix="voicecare-tests-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)
os.environ["VOICECARE_DATA_DIR"] = folder
for key in ("ELEVENLABS_API_KEY", "ELEVENLABS_API_KEY_FILE"):  # a test never calls the real provider
    os.environ.pop(key, None)
for key in ("HOST", "PORT", "SANDBOX_PORT", "PUBLIC_URL"):  # those of `make run`, which make exports
    os.environ.pop(key, None)
os.environ["HEDGE_SHARE"] = "0"  # tests count requests, and a busy machine answers late
os.environ["DEFAULT_VOICE_ID"] = "21m00Tcm4TlvDq8ikWAM"  # a stock voice of the sandbox; some tests unset it

if redis_url := os.environ.get("REDIS_URL"):
    base_url, _, database = redis_url.rpartition("/")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    os.environ["REDIS_URL"] = f"{base_url}/{int(database) - int(worker)}"

if os.environ.get("PHRASE_STORE") == "s3" and "AWS_S3_ENDPOINT_URL" not in os.environ:
    from tests.services import S3Process

    s3 = S3Process()
    atexit.register(s3.__exit__, None, None, None)
    os.environ.update(s3.environment)

# No deadline, because a busy machine is not a defect. Derandomized, so that every run finds the same failures.
settings.register_profile("voicecare", deadline=None, database=None, derandomize=True)
settings.load_profile("voicecare")
