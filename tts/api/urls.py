from django.urls import path

from tts.api import pronunciations, views

urlpatterns = [
    path("patients/<uuid:id>/speak/", views.Speak.as_view(), name="speak"),
    path("speech/", views.SpeechAudio.as_view(), name="speech"),
    path("voices/<uuid:id>/preview/", views.VoicePreview.as_view(), name="voice-preview"),
    path("utterances/<uuid:id>/", views.UtteranceDetail.as_view(), name="utterance"),
    path("conversations/", views.ConversationList.as_view(), name="conversations"),
    path("conversations/<uuid:id>/", views.ConversationDetail.as_view(), name="conversation"),
    path("conversations/<uuid:id>/utterances/", views.ConversationUtterances.as_view(), name="conversation-utterances"),
    path("pronunciations/", pronunciations.PronunciationList.as_view(), name="pronunciations"),
    path("pronunciations/<int:id>/", pronunciations.PronunciationDetail.as_view(), name="pronunciation"),
]
