"""The formats of dates and times in the admin (settings.FORMAT_MODULE_PATH)."""
