from django.urls import path

from usage.api import views

urlpatterns = [
    path("patients/<uuid:id>/budget/", views.Budget.as_view(), name="patient-budget"),
    path("usage/daily/", views.Daily.as_view(), name="daily-usage"),
    path("usage/monthly/", views.Monthly.as_view(), name="monthly-usage"),
    path("usage/quota/", views.Quota.as_view(), name="quota"),
]
