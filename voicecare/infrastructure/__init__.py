"""Configures or replaces parts of other software: storages, schedule and broker of Celery, daphne, PostgreSQL.

Public modules: `storages`, `uploads`, `schedule`, `scheduler`, `filesystem_broker`, `postgresql`, `daphne_patches` and
`http_responses`, which only settings.py, asgi.py and celery.py use, and `online_indexes` for migrations. `scheduler`
imports `usage.alerts`. `http_responses` imports the access to daphne's buffers from `tts.devices`. The others import
nothing of this project.
"""
