"""The Django project: settings, URLs, the ASGI and Celery applications, and what the apps tts, usage and cloning share.

Importing this package loads nothing else. `VoicecareConfig.ready()` creates the Celery application.
"""
