"""REST routes of webhooks."""

from django.urls import path

from voicecare.webhooks.api import views

urlpatterns = [
    path("webhooks/", views.EndpointList.as_view(), name="webhooks"),
    path("webhooks/<uuid:id>/", views.EndpointDetail.as_view(), name="webhook"),
    path("webhooks/<uuid:id>/rotate/", views.SecretRotation.as_view(), name="webhook-rotation"),
    path("webhooks/<uuid:id>/deliveries/", views.DeliveryList.as_view(), name="webhook-deliveries"),
]
