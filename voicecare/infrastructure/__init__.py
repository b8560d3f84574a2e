"""Configures or replaces parts of other software: file storages, the schedule and broker of Celery, patches of daphne.

Public modules: `storages`, `schedule`, `scheduler`, `filesystem_broker` and `daphne_patches`. Used by settings.py,
asgi.py and celery.py only. `scheduler` imports `usage.alerts`; the others import nothing of this project.
"""
