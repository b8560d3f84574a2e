"""The Django project: settings, URLs, the ASGI and Celery applications, and the code that tts, usage and cloning share.

Importing this package imports no other module. `VoicecareConfig.ready()` imports the Celery application.
"""
