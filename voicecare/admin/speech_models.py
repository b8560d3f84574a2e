"""The page of the admin about the model of all speech: the current one, and what another one would change."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from cloning.gateway import provider_voices
from tts.conversations.model_check import find_model_problems
from tts.conversations.model_comparison import compare_models
from voicecare.providers.elevenlabs.models import ModelCatalogue
from voicecare.providers.errors import AuthorizationError, ProviderError

PERMISSION = "usage.change_providerstate"  # of the role Administrator only
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
