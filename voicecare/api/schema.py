"""The OpenAPI schema: adds the needed permission and the common error responses to every operation."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers

from voicecare.api.pagination import PageNumberPagination


@extend_schema_serializer(
    examples=[OpenApiExample("Error", {"detail": "No Patient matches the given query.", "code": "not_found"})]
)
class ErrorSerializer(serializers.Serializer):
    detail = serializers.CharField(help_text="For people.")
    code = serializers.CharField(help_text="For programs; stable.")


class FieldErrorSerializer(serializers.Serializer):
    field = serializers.CharField(help_text="The name of the field or query parameter. That of a nested one has dots.")
    code = serializers.CharField(help_text="For programs; stable.")
    detail = serializers.CharField(help_text="For people.")


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "An invalid field",
            {
                "text": ["This field may not be blank."],
                "detail": "text: This field may not be blank.",
                "code": "invalid",
                "errors": [{"field": "text", "code": "blank", "detail": "This field may not be blank."}],
            },
        )
    ]
)
class InvalidRequestSerializer(ErrorSerializer):
    """The body of every response with status 400.

    If fields are invalid, their names are further keys, with a list of messages each.
    """

    errors = FieldErrorSerializer(  # type: ignore[assignment]  # the metaclass removes the attribute
        many=True, required=False, help_text="Each invalid field."
    )


_ERROR = {"$ref": "#/components/schemas/Error"}
_INVALID_REQUEST = {"$ref": "#/components/schemas/InvalidRequest"}
_PAGING = {PageNumberPagination.page_query_param, PageNumberPagination.page_size_query_param}


class CallSchema(AutoSchema):
    """Adds the permission that a call needs to its description, as `required_permissions` of its view names it."""

    def get_description(self) -> str:  # type: ignore[override]  # like drf-spectacular's
        description = super().get_description() or ""
        permission = getattr(self.view, "required_permissions", {}).get(self.method)
        return f"{description}\n\nNeeds the permission `{permission}`.".strip() if permission else description


def add_errors(result: dict[str, Any], **_context: object) -> dict[str, Any]:
    """Adds error responses to each operation of the OpenAPI schema.

    Which ones depends on the authentication, the parameters and the body of the operation. This is a postprocessing
    hook of drf-spectacular. Responses that a view documents itself are not replaced. The added responses refer to the
    schema components `Error` and `InvalidRequest`. drf-spectacular creates them, because the login documents its
    statuses 400 and 429 with their serializers.
    """
    for path, operations in result["paths"].items():
        for operation in operations.values():
            errors = {
                code: {
                    "content": {"application/json": {"schema": _INVALID_REQUEST if code == "400" else _ERROR}},
                    "description": description,
                }
                for code, description in _errors(path, operation).items()
            }
            operation["responses"] = dict(sorted({**errors, **operation["responses"]}.items()))
    return result


def _errors(path: str, operation: Mapping[str, Any]) -> dict[str, str]:
    """Returns the error responses that an operation can have, as a mapping from the status code to a description."""
    parameters = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] != "path"}
    takes_body = "requestBody" in operation
    speaks = any("Speech-Source" in response.get("headers", ()) for response in operation["responses"].values())
    errors = {"401": "Credentials are missing or wrong."}
    if "Needs the permission" in operation.get("description", ""):
        errors["403"] = "`permission_denied`: the user lacks the permission for this call."
    if "{" in path or parameters & _PAGING:
        errors["404"] = "Not found, or not visible to this user."
    if takes_body or parameters or speaks:  # the provider may reject a text
        errors["400"] = "A value is missing or invalid, or a parameter is unknown."
    if takes_body:
        errors |= {"413": "The body is too large.", "415": "The content type of the body is not supported."}
    return errors


class BearerScheme(OpenApiAuthenticationExtension):
    """Describes the authentication with bearer tokens in the OpenAPI schema.

    drf-spectacular finds this class because it is a subclass of OpenApiAuthenticationExtension. No code refers to it.
    """

    target_class = "voicecare.api.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
