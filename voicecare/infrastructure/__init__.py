"""Configures or replaces parts of other software: file storages, the schedule and broker of Celery, patches of daphne.

Public modules: `storages`, `uploads`, `schedule`, `scheduler`, `filesystem_broker`, `daphne_patches` and
`http_responses`, which only settings.py, asgi.py and celery.py use, and `online_indexes` for migrations. `scheduler`
imports `usage.alerts`. `http_responses` imports the access to daphne's buffers from `tts.devices`. The others import
nothing of this project.
"""
