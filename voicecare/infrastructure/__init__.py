"""Parts that configure or replace other software: file storages, Celery's schedule, scheduler and folder broker, patches.

Public modules: `storages`, `schedule`, `scheduler`, `filesystem_broker` and `daphne_patches`. Used by settings.py,
asgi.py and celery.py only. `scheduler` imports `usage.alerts`; the others import nothing of this project.
"""
