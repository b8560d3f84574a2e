"""Every HTTP address; the WebSocket's is in routing.py."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path

from voicecare import health

admin.site.site_url = None  # there is no site beside the admin to view

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
]
