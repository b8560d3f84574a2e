"""Everything that is stored about one patient, as a ZIP file.

`sections` says what is read, `archive` writes the file, `api` sends it. `manage.py export_patient` writes it to disk.
Belongs to the composition root and may import everything.
"""
