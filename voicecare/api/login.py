"""Login with username and password for a token, and logout."""

from django.contrib.auth import authenticate
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from knox.models import AuthToken
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voicecare.api import throttling
from voicecare.api.schema import ErrorSerializer


class CredentialsSerializer(serializers.Serializer):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=1000, trim_whitespace=False)


class TokenSerializer(serializers.Serializer):
    token = serializers.CharField()
    expires_at = serializers.DateTimeField(source="expiry")


class LoginView(APIView):
    """Returns a token for a username and password. Send it as `Authorization: Bearer <token>`."""

    authentication_classes = ()  # a request with an expired token can still log in
    permission_classes = ()

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"

    @extend_schema(
        operation_id="log_in",
        request=CredentialsSerializer,
        responses={
            200: TokenSerializer,
            429: OpenApiResponse(ErrorSerializer, "Too many failed attempts; see `Retry-After`."),
        },
        auth=[],
        examples=[
            OpenApiExample("A clinician", {"username": "clinician", "password": "5c21-…"}, request_only=True),
            OpenApiExample("A token", {"token": "b7e1…", "expires_at": "2026-11-23T20:15:00Z"}, response_only=True),
        ],
    )
    def post(self, request: Request) -> Response:
        credentials = CredentialsSerializer(data=request.data)
        credentials.is_valid(raise_exception=True)
        data = credentials.validated_data
        with throttling.login_attempt(data["username"], request.META.get("REMOTE_ADDR", "")):
            user = authenticate(request, **data)
            if user is None:
                raise AuthenticationFailed("The username or the password is wrong.")
        row, token = AuthToken.objects.create(user)
        return Response(TokenSerializer({"token": token, "expiry": row.expiry}).data)


class LogoutView(APIView):
    """Revokes the token of this request."""

    @extend_schema(operation_id="log_out", request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        request.auth.delete()
        return Response(status=204)
