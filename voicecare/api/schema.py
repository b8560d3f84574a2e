"""How the API describes itself: every call with the errors that it can answer, all in one shape."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema_serializer
from rest_framework import serializers


@extend_schema_serializer(
    examples=[OpenApiExample("Error", {"detail": "No Patient matches the given query.", "code": "not_found"})]
)
class ErrorSerializer(serializers.Serializer):
    detail = serializers.CharField(help_text="For people.")
    code = serializers.CharField(help_text="For programs; stable.")


_ERROR = {"$ref": "#/components/schemas/Error"}
_FIELDS = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
    "example": {"text": ["This field may not be blank."]},
}


class Schema(AutoSchema):
    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:  # noqa: ANN401
        """What the view says of its answers, and beside it the errors that follow from what it takes."""
        said = super()._get_response_bodies(direction)
        errors = {code: self._error(code, description) for code, description in self._errors().items()}
        return dict(sorted({**errors, **said}.items()))

    def _errors(self) -> dict[str, str]:
        takes_body = self.method in {"POST", "PUT", "PATCH"} and self.get_request_serializer() is not None
        errors = {"401": "No credentials, or wrong ones."}
        if "{" in self.path or self._is_list_view():
            errors["404"] = "There is no such thing, or it is not yours."
        if takes_body or self.get_override_parameters():
            errors["400"] = "Something that was sent is missing or wrong."
        if takes_body:
            errors |= {"413": "The body is too large.", "415": "The body is of another kind."}
        return errors

    def _error(self, code: str, description: str) -> Any:  # noqa: ANN401
        whole = self._get_response_for_code(OpenApiResponse(ErrorSerializer, description), code)  # makes the component
        if code == "400":
            whole["content"]["application/json"]["schema"] = {"oneOf": [_ERROR, _FIELDS]}
        return whole


class BearerScheme(OpenApiAuthenticationExtension):
    """Registered by being a subclass."""

    target_class = "voicecare.api.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
