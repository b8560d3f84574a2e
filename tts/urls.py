from django.urls import path

from tts import api

urlpatterns = [
    path("patients/<uuid:id>/speak/", api.Speak.as_view(), name="speak"),
    path("speech/", api.SpeechAudio.as_view(), name="speech"),
    path("voices/<uuid:id>/preview/", api.VoicePreview.as_view(), name="voice-preview"),
    path("utterances/<uuid:id>/", api.UtteranceDetail.as_view(), name="utterance"),
    path("conversations/", api.ConversationList.as_view(), name="conversations"),
    path("conversations/<uuid:id>/", api.ConversationDetail.as_view(), name="conversation"),
    path("conversations/<uuid:id>/utterances/", api.ConversationUtterances.as_view(), name="conversation-utterances"),
]
