from django.urls import path

from cloning import api

urlpatterns = [
    path("patients/<uuid:id>/clones/", api.CloneList.as_view(), name="patient-clones"),
    path("clones/<uuid:id>/", api.CloneDetail.as_view(), name="clone"),
    path("clones/<uuid:id>/retry/", api.CloneRetry.as_view(), name="clone-retry"),
    path("voices/sync/", api.VoiceSync.as_view(), name="voice-sync"),
]
