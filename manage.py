#!/usr/bin/env python
"""Django's command line: `python manage.py help`."""

import os
import sys


def main() -> None:
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
