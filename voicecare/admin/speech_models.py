"""The pages of the admin about the model of all speech: what another one would change, and a trial of it."""

import base64
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from cloning.gateway import provider_voices
from tts.conversations.model_check import find_model_problems
from tts.conversations.model_comparison import Comparison, compare_models
from tts.conversations.voice import VoiceRef
from tts.synthesis import model_trial
from usage.models import ProviderState
from usage.provider_state import circuit
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.models import ModelCatalogue
from voicecare.providers.errors import AuthorizationError, ProviderError

PERMISSION = "usage.change_providerstate"  # of the role Administrator only
RUNNING_S = 2 * model_trial.TOTAL_TIMEOUT_S
RUNNING = "model_trial"  # key of the cache: one trial at a time in this process, so that a double click is billed once
LIST_TIMEOUT_S = (3.05, 5.0)  # connect, read; a person waits

Context = Callable[[HttpRequest], dict[str, Any]]


def models_page(request: HttpRequest, each_context: Context) -> HttpResponse:
    """Returns the page. The list of models is read from the provider each time, which is free."""
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    catalogue, failure = _read_catalogue()
    current_id = settings.ELEVENLABS_MODEL_ID
    context = {
        "title": "Model of all speech",
        "failure": failure,
        "current_id": current_id,
        "current": catalogue.get(current_id),
        "problems": find_model_problems(catalogue),
        "comparison": compare_models(catalogue, current_id),
    }
    return TemplateResponse(request, "admin/speech_models.html", {**each_context(request), **context})


def trial_page(request: HttpRequest, each_context: Context) -> HttpResponse:
    """Asks whether to have the model of the parameter `model` and the current one speak, and does it after a POST.

    The samples are part of the page, so nothing is requested again to hear them, and nothing is stored.
    """
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    model_id, current_id = request.GET.get("model", ""), settings.ELEVENLABS_MODEL_ID
    catalogue, failure = _read_catalogue()
    voice = Voice.objects.default(model_trial.LANGUAGE)
    refusal = failure or _reason_against(model_id, compare_models(catalogue, current_id), voice)
    if not refusal and request.method == "POST" and not cache.add(RUNNING, "", RUNNING_S):
        refusal = "Another trial is running. Try again in a minute."
    if refusal:
        messages.error(request, f"No model was tried. {refusal}")
        return HttpResponseRedirect(reverse("admin:models"))
    context: dict[str, Any] = {"title": f"Trial of {model_id}", "text": model_trial.TEXT, "voice": voice}
    if request.method == "POST":
        try:
            record(request, Action.TRY_MODEL, ProviderState)
            trials = model_trial.try_models(VoiceRef.from_voice(voice), [current_id, model_id])
        finally:
            cache.delete(RUNNING)
        context["trials"] = [(trial, base64.b64encode(trial.audio).decode()) for trial in trials]
    else:
        characters = model_trial.REPETITIONS * len(model_trial.TEXT)
        prices = [catalogue.get(one).credits_for(characters) for one in (current_id, model_id)]
        context |= {
            "current_id": current_id,
            "model_id": model_id,
            "requests": 2 * model_trial.REPETITIONS,
            "characters": 2 * characters,
            "credits": None if None in prices else sum(price or 0 for price in prices),
        }
    return TemplateResponse(request, "admin/speech_model_trial.html", {**each_context(request), **context})


def _reason_against(model_id: str, comparison: Comparison, voice: Voice | None) -> str:
    """Returns in words why this model cannot be tried now, or an empty text."""
    candidate = next((one for one in comparison.candidates if one.model_id == model_id), None)
    if candidate is None:
        return "The account has no such model for speech any longer, or it is the current one."
    if voice is None:
        return "There is no default voice that could speak."
    return candidate.obstacle or model_trial.reason_against(circuit.read_status())


def _read_catalogue() -> tuple[ModelCatalogue, str]:
    """Returns the models of the account, and a sentence that says why there are none. It is empty if there are some."""
    catalogue = ModelCatalogue()
    try:
        with provider_voices.account_client(LIST_TIMEOUT_S) as client:
            catalogue.update(client.models())
    except AuthorizationError as error:
        return catalogue, f"The provider does not let the API key read the list of models ({error.support_details})."
    except ProviderError as error:
        return catalogue, f"The list of models cannot be read now ({error.support_details})."
    return catalogue, "" if catalogue.listed_ids else "The provider's list of models is empty."
