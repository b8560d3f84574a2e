"""HTTP routes. WebSocket routes are in routing.py."""

from csp.decorators import csp_update
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from rest_framework.authentication import SessionAuthentication

from tts.api.views import VoicePreview
from voicecare.api.errors import NotFoundView
from voicecare.api.login import LoginView, LogoutView
from voicecare.health import diagnostics, probes
from voicecare.patient_export.api import PatientExport

api: list[URLPattern | URLResolver] = [
    path("auth/token/", LoginView.as_view(), name="log-in"),
    path("auth/logout/", LogoutView.as_view(), name="log-out"),
    path("", include("voicecare.patients.urls")),
    path("patients/<uuid:id>/export/", PatientExport.as_view(), name="patient-export"),
    path("", include("tts.api.urls")),
    path("", include("cloning.api.urls")),
    path("", include("usage.api.urls")),
    path("", include("voicecare.webhooks.api.urls")),
]
# Swagger UI sets inline styles.
docs = csp_update({"style-src": ["'self'", "'unsafe-inline'"]})(SpectacularSwaggerSplitView.as_view())
# An audio player in the admin sends the session cookie and no token. The route is not part of the REST API's schema.
preview = VoicePreview.as_view(authentication_classes=(SessionAuthentication,), schema=None)
urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/voices/<uuid:id>/preview/", admin.site.admin_view(preview), name="admin-voice-preview"),
    path("admin/", admin.site.urls),
    path("console/", include("voicecare.console.urls")),
    path("metrics", probes.metrics),
    path("diagnostics", diagnostics.diagnostics),
    path("api/v1/", include(api)),
    path("api/schema/", SpectacularJSONAPIView.as_view(), name="schema"),
    path("api/docs/", docs, name="docs"),
    re_path(r"^api(/|$)", NotFoundView.as_view()),
]
