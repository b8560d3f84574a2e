"""The tests, and the commands that measure. Both use the client package of clients/python, as `manage.py` does."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "clients" / "python"))
