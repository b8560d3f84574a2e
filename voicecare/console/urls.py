"""HTTP routes of the console, under /console/."""

from django.urls import path
from rest_framework.authentication import SessionAuthentication

from cloning.api.views import CloneDetail, CloneList, CloneRetry
from tts.api.views import VoicePreview
from voicecare.console import clone_views, conversation_views, patient_views, views
from voicecare.console.access import call
from voicecare.console.clone_views import session_call

app_name = "console"
# As in the admin: an audio player sends the session cookie and no token.
preview = VoicePreview.as_view(authentication_classes=(SessionAuthentication,), schema=None)
urlpatterns = [
    path("", views.patients, name="patients"),
    path("log-in/", views.ConsoleLoginView.as_view(), name="log-in"),
    path("log-out/", views.ConsoleLogoutView.as_view(), name="log-out"),
    path("<uuid:patient_id>/", views.console, name="console"),
    path("<uuid:patient_id>/device/", views.issue, name="issue"),
    path("devices/<uuid:device_id>/keep/", views.keep, name="keep"),
    path("devices/<uuid:device_id>/revoke/", views.revoke, name="revoke"),
    path("clone/", clone_views.patients, name="clone-patients"),
    path("clone/<uuid:patient_id>/", clone_views.clone, name="clone"),
    path("clone/<uuid:patient_id>/check/", session_call(clone_views.RecordingCheck), name="check-recording"),
    path("clone/<uuid:id>/clones/", session_call(CloneList), name="make-clone"),
    path("clone/clones/<uuid:id>/", session_call(CloneDetail), name="clone-status"),
    path("clone/clones/<uuid:id>/retry/", session_call(CloneRetry), name="retry-clone"),
    path("clone/clones/<uuid:job_id>/use/", session_call(clone_views.UseVoice), name="use-clone"),
    path("clone/clones/<uuid:job_id>/revert/", session_call(clone_views.RevertVoice), name="revert-clone"),
    path("faults/<slug:fault_name>/", views.fault, name="fault"),
    path("patients/<uuid:patient_id>/", patient_views.patient, name="patient"),
    path("patients/<uuid:patient_id>/live/", patient_views.live, name="patient-live"),
    path("patients/<uuid:patient_id>/voices/", patient_views.voices, name="voices"),
    path("patients/<uuid:patient_id>/say/", patient_views.say, name="say"),
    path("patients/<uuid:patient_id>/usage/", patient_views.usage, name="usage"),
    path("patients/<uuid:patient_id>/conversations/", conversation_views.conversations, name="conversations"),
    path("conversations/<uuid:conversation_id>/", conversation_views.conversation, name="conversation"),
    path("messages/<uuid:utterance_id>/", conversation_views.message, name="message"),
    path("messages/<uuid:utterance_id>/cancel/", patient_views.cancel, name="cancel"),
    path("voices/<uuid:id>/preview/", call("patients.view_voice")(preview), name="preview"),
]
