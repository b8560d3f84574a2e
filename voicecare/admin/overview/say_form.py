"""The form that speaks a text to a patient, in the admin and in the console."""

import uuid
from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import HttpRequest, QueryDict

from tts.api import messages
from tts.api.serializers import DEFAULT_EXPIRY_S, SpeakSerializer
from tts.models import Utterance
from voicecare.core.errors import IdempotencyConflict
from voicecare.patients.models import Patient

_EXPIRIES = ((900, "15 minutes"), (3600, "1 hour"), (4 * 3600, "4 hours"), (24 * 3600, "1 day"))
SENT_BEFORE = "This form has been sent before, with another text. Press Say to send this text, too."


class SayForm(forms.Form):
    """A text for a patient, with the same rules as over REST. `key` makes sending the form twice harmless."""

    text = forms.CharField(strip=False, widget=forms.Textarea(attrs={"rows": 4}))
    expires_in_s = forms.TypedChoiceField(
        label="Try for",
        choices=_EXPIRIES,
        coerce=int,
        initial=DEFAULT_EXPIRY_S,
        help_text="If the text cannot be spoken by then, it expires.",
    )
    key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)

    def clean(self) -> dict[str, Any]:
        if not self.errors:
            wanted = {name: self.cleaned_data[name] for name in ("text", "expires_in_s")}
            serializer = SpeakSerializer(data=wanted)
            if not serializer.is_valid():
                for name, errors in serializer.errors.items():
                    self.add_error(name, [str(error) for error in errors])
        return self.cleaned_data

    def send(self, request: HttpRequest, patient: Patient) -> Utterance | None:
        """Queues the text of a valid form. Returns None if the form was sent before, with another text."""
        wanted: Mapping[str, Any] = {name: self.cleaned_data[name] for name in ("text", "expires_in_s")}
        try:
            return messages.send(request, patient, **wanted, idempotency_key=f"admin {self.cleaned_data['key']}")
        except IdempotencyConflict:
            return None

    @classmethod
    def sent_before(cls, data: QueryDict) -> "SayForm":
        """A form with the same text, that can be sent, and the error that this one was sent before."""
        form = cls({**data.dict(), "key": uuid.uuid4()})
        form.add_error(None, SENT_BEFORE)
        return form
