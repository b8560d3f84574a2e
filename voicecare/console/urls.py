"""HTTP routes of the device console, under /console/."""

from django.urls import path

from voicecare.console import views

app_name = "console"
urlpatterns = [
    path("", views.patients, name="patients"),
    path("log-in/", views.ConsoleLoginView.as_view(), name="log-in"),
    path("log-out/", views.ConsoleLogoutView.as_view(), name="log-out"),
    path("<uuid:patient_id>/", views.console, name="console"),
    path("<uuid:patient_id>/device/", views.issue, name="issue"),
    path("devices/<uuid:device_id>/keep/", views.keep, name="keep"),
    path("devices/<uuid:device_id>/revoke/", views.revoke, name="revoke"),
    path("faults/<slug:fault_name>/", views.fault, name="fault"),
]
