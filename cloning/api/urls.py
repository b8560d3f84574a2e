from django.urls import path

from cloning.api import views

urlpatterns = [
    path("patients/<uuid:id>/clones/", views.CloneList.as_view(), name="patient-clones"),
    path("clones/<uuid:id>/", views.CloneDetail.as_view(), name="clone"),
    path("clones/<uuid:id>/retry/", views.CloneRetry.as_view(), name="clone-retry"),
    path("voices/sync/", views.VoiceSync.as_view(), name="voice-sync"),
]
