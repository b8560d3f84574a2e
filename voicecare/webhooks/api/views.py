"""REST views of webhook endpoints.

A user who does not see all patients sees the endpoints of their clinics only. Any other endpoint has the same status as
an unknown one, 404.
"""

import uuid
from typing import Any, cast

from django.db import transaction
from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from voicecare.api import idempotency
from voicecare.audit.changes import differences, values_of
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients import care_teams
from voicecare.webhooks.api.serializers import (
    ENDPOINT_EXAMPLE,
    SECRET_EXAMPLE,
    DeliveryFilter,
    DeliverySerializer,
    EndpointSecretSerializer,
    EndpointSerializer,
)
from voicecare.webhooks.models import WebhookDelivery, WebhookEndpoint

ROTATE_HINT = "Its secret is not shown again. If it is lost, rotate the secret of the endpoint with another key."
REQUEST_EXAMPLE = OpenApiExample(
    "An endpoint",
    {
        "url": "https://records.example.org/hooks/voicecare",
        "description": "Patient records",
        "events": ["utterance.heard", "utterance.expired", "utterance.failed"],
    },
    request_only=True,
)


@extend_schema_view(get=extend_schema(operation_id="list_webhooks", summary="List webhook endpoints"))
class EndpointList(generics.ListCreateAPIView):
    """The webhook endpoints, the oldest first."""

    serializer_class = EndpointSerializer
    required_permissions = {"GET": "webhooks.view_webhookendpoint", "POST": "webhooks.add_webhookendpoint"}

    def get_queryset(self) -> QuerySet[WebhookEndpoint]:
        return WebhookEndpoint.objects.visible_to(self.request.user).order_by("created_at", "pk")

    @extend_schema(
        operation_id="create_webhook",
        summary="Add a webhook endpoint",
        parameters=[idempotency.HEADER],
        responses={201: EndpointSecretSerializer, 409: idempotency.CONFLICT_OR_SECRET},
        examples=[REQUEST_EXAMPLE, SECRET_EXAMPLE],
    )
    @transaction.atomic
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Creates an endpoint and returns its secret. No other response contains this secret."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        call = idempotency.begin(request, request.data)
        if call and call.object_id:
            raise idempotency.SecretAlreadyShown(call.object_id, ROTATE_HINT)
        endpoint = WebhookEndpoint(**serializer.validated_data)
        endpoint.new_secret()
        endpoint.save(force_insert=True)
        idempotency.finish(call, endpoint.pk)
        given = {name: value for name, value in values_of(endpoint).items() if name in serializer.validated_data}
        record(request, Action.ADD, endpoint, differences(WebhookEndpoint, {}, given))
        return Response(EndpointSecretSerializer(endpoint).data, 201)


@extend_schema_view(
    get=extend_schema(operation_id="get_webhook", summary="Get a webhook endpoint"),
    delete=extend_schema(operation_id="delete_webhook", summary="Delete a webhook endpoint"),
)
class EndpointDetail(generics.RetrieveUpdateDestroyAPIView):
    """An endpoint."""

    serializer_class = EndpointSerializer
    required_permissions = {
        "GET": "webhooks.view_webhookendpoint",
        "PATCH": "webhooks.change_webhookendpoint",
        "DELETE": "webhooks.delete_webhookendpoint",
    }
    http_method_names = ("get", "patch", "delete", "head", "options")
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[WebhookEndpoint]:
        return WebhookEndpoint.objects.visible_to(self.request.user)

    @extend_schema(
        operation_id="update_webhook",
        summary="Update a webhook endpoint",
        examples=[OpenApiExample("Disable it", {"enabled": False}, request_only=True), ENDPOINT_EXAMPLE],
    )
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Changes the endpoint. While it is disabled, it gets no new events, and pending deliveries wait."""
        return super().patch(request, *args, **kwargs)

    @transaction.atomic
    def perform_update(self, serializer: BaseSerializer) -> None:
        before = values_of(cast(WebhookEndpoint, serializer.instance))
        endpoint = serializer.save()
        record(self.request, Action.CHANGE, endpoint, differences(WebhookEndpoint, before, values_of(endpoint)))

    def delete(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Deletes the endpoint and its deliveries. What is pending is not sent."""
        return super().delete(request, *args, **kwargs)

    @transaction.atomic
    def perform_destroy(self, endpoint: WebhookEndpoint) -> None:
        record(self.request, Action.DELETE, endpoint, differences(WebhookEndpoint, values_of(endpoint), {}))
        endpoint.delete()


class SecretRotation(APIView):
    required_permissions = {"POST": "webhooks.change_webhookendpoint"}

    @extend_schema(
        operation_id="rotate_webhook_secret",
        summary="Replace the secret of a webhook endpoint",
        parameters=[idempotency.HEADER],
        request=None,
        responses={200: EndpointSecretSerializer, 409: idempotency.CONFLICT_OR_SECRET},
    )
    @transaction.atomic
    def post(self, request: Request, id: uuid.UUID) -> Response:
        """Gives the endpoint a new secret and returns it. No other response contains it.

        For a day, messages have two signatures: with the new secret, and with the previous one.
        """
        endpoint = get_object_or_404(WebhookEndpoint.objects.visible_to(request.user).select_for_update(), pk=id)
        call = idempotency.begin(request, None)
        if call and call.object_id:
            raise idempotency.SecretAlreadyShown(call.object_id, ROTATE_HINT)
        endpoint.renew_secret()
        idempotency.finish(call, endpoint.pk)
        record(request, Action.RENEW_SECRET, endpoint)
        return Response(EndpointSecretSerializer(endpoint).data)


class DeliveryList(generics.ListAPIView):
    """The deliveries of an endpoint, the newest first, with all attempts."""

    serializer_class = DeliverySerializer
    filter_class = DeliveryFilter
    required_permissions = {"GET": "webhooks.view_webhookdelivery"}

    def get_queryset(self) -> QuerySet[WebhookDelivery]:
        user = self.request.user
        endpoint = get_object_or_404(WebhookEndpoint.objects.visible_to(user), pk=self.kwargs["id"])
        wanted = DeliveryFilter(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        columns = {"status": "status", "type": "event__type", "object": "object_id"}
        conditions = {columns[name]: value for name, value in wanted.validated_data.items()}
        visible = care_teams.limit(endpoint.deliveries.all(), user, "event__patient", Q(event__patient=None))
        return visible.filter(**conditions).select_related("event").prefetch_related("log").order_by("-pk")

    @extend_schema(
        operation_id="list_webhook_deliveries",
        summary="List the deliveries to an endpoint",
        parameters=[DeliveryFilter],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        return super().get(request, *args, **kwargs)
