"""The provider's error responses, in all forms of the body that exist.

In the forms `new` and `legacy`, `detail` is an object. In the form `validation` it is the list of FastAPI, and in
`plain` a text. `html` is a page of a load balancer. `PRESETS` has one error for each condition. The validation of
requests and the injected faults use the same presets.
"""

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Form = Literal["new", "legacy", "validation", "plain", "html"]
FORMS: tuple[Form, ...] = get_args(Form)

JSON_TYPE = "application/json"
HTML_TYPE = "text/html; charset=utf-8"

TYPES = {
    400: "validation_error",
    401: "authentication_error",
    402: "payment_required",
    403: "authorization_error",
    404: "not_found",
    409: "conflict",
    429: "rate_limit_error",
    500: "internal_error",
    503: "service_unavailable",
}


@dataclass(frozen=True)
class Preset:
    """A prepared error. `legacy` is the value of the field `status` in the body, if it differs from `code`."""

    status: int
    form: Form
    code: str
    message: str
    legacy: str = ""


PRESETS = {
    "needs_authorization": Preset(
        401,
        "legacy",
        "needs_authorization",
        "Neither authorization header nor xi-api-key received, please provide one.",
    ),
    "invalid_api_key": Preset(401, "legacy", "invalid_api_key", "Invalid API key"),
    "missing_permissions": Preset(
        401,
        "legacy",
        "missing_permissions",
        "The API key you used is missing the permission text_to_speech to execute this operation.",
    ),
    "detected_unusual_activity": Preset(
        401,
        "legacy",
        "detected_unusual_activity",
        "Unusual activity detected. Free Tier usage disabled. If you are using a proxy/VPN you might need to "
        "purchase a Paid Subscription to not trigger our abuse detectors.",
    ),
    "quota_exceeded": Preset(401, "legacy", "quota_exceeded", "This request exceeds your quota."),
    "insufficient_credits": Preset(402, "new", "insufficient_credits", "This request exceeds your credits."),
    "paid_plan_required": Preset(402, "new", "paid_plan_required", "This voice needs a paid plan.", "payment_required"),
    "only_for_creator+": Preset(
        403,
        "legacy",
        "only_for_creator+",
        "Professional voices are only available for Creator+ subscriptions.",
    ),
    "insufficient_permissions": Preset(
        403, "new", "insufficient_permissions", "The key may not do this in this workspace."
    ),
    "voice_access_denied": Preset(403, "new", "voice_access_denied", "You do not have access to change this voice."),
    "empty_text": Preset(400, "new", "empty_text", "The text must not be empty.", "input_text_empty"),
    "text_too_long": Preset(
        400, "new", "text_too_long", "The text is too long for this model.", "max_character_limit_exceeded"
    ),
    "invalid_text": Preset(400, "new", "invalid_text", "The text cannot be spoken."),
    "invalid_parameters": Preset(400, "new", "invalid_parameters", "A parameter has an unusable value."),
    "invalid_page_size": Preset(400, "new", "invalid_page_size", "The page size is out of range."),
    "invalid_cursor": Preset(400, "new", "invalid_cursor", "The page token is not one of ours."),
    "invalid_output_format": Preset(400, "new", "invalid_output_format", "The output format is not supported here."),
    "unsupported_language": Preset(400, "new", "unsupported_language", "The model does not support this language."),
    "invalid_voice_settings": Preset(
        400, "legacy", "invalid_voice_settings", "Invalid setting for stability received."
    ),
    "unsupported_model": Preset(400, "new", "unsupported_model", "The model is not supported here."),
    "model_not_found": Preset(400, "legacy", "model_not_found", "A model with this model ID does not exist."),
    "voice_not_found": Preset(
        404, "new", "voice_not_found", "A voice with this voice_id was not found.", "voice_not_found"
    ),
    "history_item_not_found": Preset(
        404, "new", "history_item_not_found", "A history item with this id was not found."
    ),
    "voice_limit_reached": Preset(
        400,
        "legacy",
        "voice_limit_reached",
        "You have reached your maximum amount of custom voices (30 / 30). "
        "You can upgrade your subscription to increase your custom voice limit.",
    ),
    "voice_add_edit_limit_reached": Preset(
        400,
        "legacy",
        "voice_add_edit_limit_reached",
        "You have reached the maximum number of voice additions and edits of this period.",
    ),
    "can_not_use_instant_voice_cloning": Preset(
        400,
        "legacy",
        "can_not_use_instant_voice_cloning",
        "Your subscription has no access to use instant voice cloning, please upgrade.",
    ),
    "duplicate_files": Preset(400, "legacy", "duplicate_files", "The same file was sent more than once."),
    "invalid_audio": Preset(
        400, "new", "invalid_audio", "The uploaded file is corrupted, please make sure it is playable audio."
    ),
    "request_too_large": Preset(400, "new", "request_too_large", "An uploaded file is too large."),
    "too_many_concurrent_requests": Preset(
        429,
        "legacy",
        "too_many_concurrent_requests",
        "Too many concurrent requests. Your current subscription is associated with a maximum of 10 concurrent "
        "requests (running in parallel).",
    ),
    "concurrent_limit_exceeded": Preset(429, "new", "concurrent_limit_exceeded", "Too many concurrent requests."),
    "system_busy": Preset(
        429,
        "legacy",
        "system_busy",
        "We have detected heavy traffic, please try again later. Higher subscriptions have higher priority.",
    ),
    "rate_limit_exceeded": Preset(429, "new", "rate_limit_exceeded", "Too many requests."),
    "internal_error": Preset(500, "new", "internal_error", "Something went wrong on our side."),
    "bad_gateway_html": Preset(502, "html", "502 Bad Gateway", "The server could not complete your request."),
    "gateway_timeout_html": Preset(504, "html", "504 Gateway Time-out", "The server did not answer in time."),
    "service_unavailable": Preset(503, "new", "service_unavailable", "The service is unavailable."),
    "unprocessable": Preset(422, "validation", "missing", "Field required"),
    "method_not_allowed": Preset(405, "plain", "", "Method Not Allowed"),
    "not_found": Preset(404, "plain", "", "Not Found"),
}


@dataclass
class ApiError(Exception):
    """Raised to send an error response. `status` is the HTTP status, `body` the encoded body."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)


def preset_error(preset: str, message: str = "", **extra: object) -> ApiError:
    """Returns the error for the name of a preset.

    `message` replaces the message of the preset. The fields of `extra` are added to the `detail` object.
    """
    chosen = PRESETS[preset]
    return build_error(chosen.status, chosen.form, chosen.code, message or chosen.message, chosen.legacy, **extra)


def build_error(status: int, form: Form, code: str, message: str, legacy: str = "", **extra: object) -> ApiError:
    """Returns an error with a body of the given form.

    `legacy` is the value of the field `status` in the body, if it differs from `code`.
    """
    if form == "html":
        page = f"<html><head><title>{code}</title></head><body><h1>{code}</h1><p>{message}</p></body></html>"
        return ApiError(status, page.encode(), HTML_TYPE)
    detail: Any = message
    if form == "new":
        kind = TYPES.get(status, "internal_error")
        words = {"type": kind, "code": code, "message": message, "status": legacy or code}
        detail = {**words, "request_id": uuid.uuid4().hex, **extra}
    elif form == "legacy":
        detail = {"status": legacy or code, "message": message, **extra}
    elif form == "validation":
        detail = [{"loc": ["body", "text"], "msg": message, "type": code}]
    return ApiError(status, json.dumps({"detail": detail}).encode())


def validation_error(loc: list[str | int], msg: str, kind: str, value: object = None) -> ApiError:
    """Returns the 422 error of FastAPI for one invalid field.

    `loc` is the path to the field, `msg` the message, `kind` FastAPI's type of the error, `value` the invalid value.
    """
    problem = {"type": kind, "loc": loc, "msg": msg, "input": value}
    return ApiError(422, json.dumps({"detail": [problem]}).encode())
