"""REST views for the login, which exchanges a username and password for a token, and for the logout."""

from django.contrib.auth import authenticate
from django.db import transaction
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voicecare.accounts import throttling, tokens, two_factor
from voicecare.api.schema import ErrorSerializer, InvalidRequestSerializer
from voicecare.audit.models import Action
from voicecare.audit.recording import record, record_failed_log_in, record_refused_log_in


class CredentialsSerializer(serializers.Serializer):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=1000, trim_whitespace=False)
    otp = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=40,
        help_text="The code of the authenticator app, or a recovery code. Needed if the user has a second factor.",
    )


class TokenSerializer(serializers.Serializer):
    token = serializers.CharField()
    expires_at = serializers.DateTimeField()


class LoginView(APIView):
    """Returns a token for a username and password. Send the token as `Authorization: Bearer <token>`."""

    authentication_classes = ()  # a request with an expired token can still log in
    permission_classes = ()

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"

    @extend_schema(
        operation_id="log_in",
        summary="Log in",
        request=CredentialsSerializer,
        responses={
            200: TokenSerializer,
            400: OpenApiResponse(InvalidRequestSerializer, "A value is missing or invalid."),
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
        try:
            with throttling.login_attempt(data["username"], request.META.get("REMOTE_ADDR", "")):
                user = authenticate(request, username=data["username"], password=data["password"])
                if user is None:
                    raise AuthenticationFailed("The username or the password is wrong.")
                authenticator = two_factor.check_second_factor(user, data.get("otp", ""))
                if authenticator is None and two_factor.is_required(user):
                    raise AuthenticationFailed(
                        "Set up two-factor authentication in the admin first.", "otp_setup_required"
                    )
        except Throttled:
            record_refused_log_in(request, data["username"], Action.LOG_IN_THROTTLED)
            raise
        except AuthenticationFailed:
            record_failed_log_in(request, data["username"])
            raise
        with transaction.atomic():
            token, text = tokens.issue_for_log_in(user, authenticator)
            record(request, Action.LOG_IN, user=user)
        return Response(TokenSerializer({"token": text, "expires_at": token.expires_at}).data)


class LogoutView(APIView):
    """Revokes the token with which this request is authenticated. Needs no permission."""

    permission_classes = (IsAuthenticated,)

    @extend_schema(operation_id="log_out", summary="Log out", request=None, responses={204: None})
    @transaction.atomic
    def post(self, request: Request) -> Response:
        record(request, Action.LOG_OUT)
        tokens.log_out(request.auth)
        return Response(status=204)
