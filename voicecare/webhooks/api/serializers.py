"""Serializers of webhook endpoints and deliveries."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers

from voicecare.patients import care_teams
from voicecare.patients.models import Clinic
from voicecare.patients.models.patient import sees_all_patients
from voicecare.webhooks.models import (
    SUBSCRIBABLE,
    EventType,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)

CLINIC_NEEDED = "Choose a clinic that you are a member of. Events about all patients need the permission to see them."

_ENDPOINT = {
    "id": "3f0c5a6e-0d52-4a1b-9a35-6a0a5a4d9c11",
    "url": "https://records.example.org/hooks/voicecare",
    "description": "Patient records",
    "events": ["utterance.heard", "utterance.expired", "utterance.failed"],
    "clinic": None,
    "enabled": True,
    "failing_since": None,
    "disabled_at": None,
    "created_at": "2026-11-23T11:58:00Z",
}
ENDPOINT_EXAMPLE = OpenApiExample("An endpoint", _ENDPOINT, response_only=True)
SECRET_EXAMPLE = OpenApiExample(
    "An endpoint with its secret",
    {**_ENDPOINT, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8I…"},
    response_only=True,
)
DELIVERY_EXAMPLE = OpenApiExample(
    "Delivered at the second attempt",
    {
        "id": 4711,
        "event": "b0b8c8a3-7d65-5a52-8a0e-2f5b1f0f3d10",
        "type": "utterance.heard",
        "object": "9c0b7f5e-4f0e-4d33-8f44-7a1f2b3c4d5e",
        "patient": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10",
        "status": "delivered",
        "created_at": "2026-11-23T11:58:00Z",
        "ended_at": "2026-11-23T11:58:06Z",
        "next_attempt_at": None,
        "attempts": [
            {
                "number": 1,
                "started_at": "2026-11-23T11:58:00Z",
                "duration_ms": 41,
                "status_code": 503,
                "problem": "refused",
                "excerpt": "Service Unavailable",
            },
            {
                "number": 2,
                "started_at": "2026-11-23T11:58:06Z",
                "duration_ms": 38,
                "status_code": 204,
                "problem": "",
                "excerpt": "",
            },
        ],
    },
    response_only=True,
)


@extend_schema_serializer(examples=[ENDPOINT_EXAMPLE])
class EndpointSerializer(serializers.ModelSerializer[WebhookEndpoint]):
    events = serializers.ListField(
        child=serializers.ChoiceField([(kind.value, kind.label) for kind in SUBSCRIBABLE]),
        required=False,
        help_text="The types of events that it gets. Empty: all types.",
    )
    clinic = serializers.PrimaryKeyRelatedField(
        queryset=Clinic.objects.all(),
        pk_field=serializers.UUIDField(),
        allow_null=True,
        required=False,
        help_text="Only events about the patients of this clinic. null: about all patients.",
    )

    class Meta:
        model = WebhookEndpoint
        fields: tuple[str, ...] = (
            *("id", "url", "description", "events", "clinic", "enabled"),
            *("failing_since", "disabled_at", "created_at"),
        )
        read_only_fields: tuple[str, ...] = ("id", "failing_since", "disabled_at", "created_at")

    def validate_events(self, events: list[str]) -> list[str]:
        return sorted(set(events))

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Reject a clinic that the user does not see, and all patients for a user who does not see them."""
        user = self.context["request"].user
        if self.instance is None or "clinic" in values:
            clinic = values.get("clinic")
            if clinic is None and not sees_all_patients(user):
                raise serializers.ValidationError({"clinic": CLINIC_NEEDED}, "clinic_needed")
            if clinic is not None and not care_teams.visible_clinics(user).filter(pk=clinic.pk).exists():
                message = f'Invalid pk "{clinic.pk}" - object does not exist.'
                raise serializers.ValidationError({"clinic": message}, "does_not_exist")
        return values

    def update(self, endpoint: WebhookEndpoint, values: dict[str, Any]) -> WebhookEndpoint:
        """Save only the fields that the request contains. The worker may have changed the others meanwhile."""
        for name, value in values.items():
            setattr(endpoint, name, value)
        endpoint.save(update_fields=values)
        return endpoint


@extend_schema_serializer(examples=[SECRET_EXAMPLE])
class EndpointSecretSerializer(EndpointSerializer):
    """An endpoint with its new secret. No other response contains this secret."""

    class Meta(EndpointSerializer.Meta):
        fields = (*EndpointSerializer.Meta.fields, "secret")
        read_only_fields = (*EndpointSerializer.Meta.read_only_fields, "secret")


class AttemptSerializer(serializers.ModelSerializer[WebhookAttempt]):
    problem = serializers.ChoiceField(
        [("", "None"), *WebhookAttempt.Problem.choices], help_text="Why the attempt failed. Empty if it did not."
    )

    class Meta:
        model = WebhookAttempt
        fields = ("number", "started_at", "duration_ms", "status_code", "problem", "excerpt")


@extend_schema_serializer(examples=[DELIVERY_EXAMPLE])
class DeliverySerializer(serializers.ModelSerializer[WebhookDelivery]):
    type = serializers.ChoiceField(EventType.choices, source="event.type")
    object = serializers.UUIDField(source="object_id", help_text="The utterance, clone, voice or device.")
    patient = serializers.UUIDField(source="event.patient_id", allow_null=True)
    attempts = AttemptSerializer(many=True, source="log")
    next_attempt_at = serializers.SerializerMethodField(help_text="null if the delivery has ended.")

    class Meta:
        model = WebhookDelivery
        fields = (
            *("id", "event", "type", "object", "patient", "status"),
            *("created_at", "ended_at", "next_attempt_at", "attempts"),
        )

    def get_next_attempt_at(self, delivery: WebhookDelivery) -> str | None:
        if delivery.status != WebhookDelivery.Status.PENDING:
            return None
        moment: str = self.fields["created_at"].to_representation(delivery.next_attempt_at)
        return moment


class DeliveryFilter(serializers.Serializer):
    """The parameters of the list of deliveries."""

    status = serializers.ChoiceField(WebhookDelivery.Status.choices, required=False)
    type = serializers.ChoiceField(EventType.choices, required=False)
    object = serializers.UUIDField(required=False, help_text="The id of an utterance, clone, voice or device.")
