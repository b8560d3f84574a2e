#!/usr/bin/env python
"""Django's command line: `python manage.py help`."""

import os
import sys
from pathlib import Path


def main() -> None:
    # The client for devices, which `talk` uses, is a package of its own. Its folder has no hash that pip could check.
    sys.path.append(str(Path(__file__).parent / "clients" / "python"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")
    try:
        from django.core.management import execute_from_command_line
        from django.db import OperationalError
    except ImportError:
        sys.exit("Django is not installed here: run `make install`, then use .venv/bin/python manage.py ...")
    try:
        execute_from_command_line(sys.argv)
    except OperationalError as error:  # a wrong DATABASE_URL, or a database that is down
        if "--traceback" in sys.argv:
            raise
        sys.exit(f"The database of DATABASE_URL fails: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
