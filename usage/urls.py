from django.urls import path

from usage import api

urlpatterns = [
    path("patients/<uuid:id>/budget/", api.Budget.as_view(), name="patient-budget"),
    path("usage/daily/", api.Daily.as_view(), name="daily-usage"),
    path("usage/monthly/", api.Monthly.as_view(), name="monthly-usage"),
    path("usage/quota/", api.Quota.as_view(), name="quota"),
]
