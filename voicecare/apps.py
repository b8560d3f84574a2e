from django.apps import AppConfig


class VoicecareConfig(AppConfig):
    name = "voicecare"

    def ready(self) -> None:
        from voicecare import checks  # noqa: F401  # registers itself
