"""The admin pages of voice clones: upload, status, playback, retry, revert and withdrawal.

A clone job is changed only by these actions. Its fields cannot be edited.
"""

import uuid
from functools import partial
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.translation import ngettext

from cloning.consent import withdrawal
from cloning.consent.wording import WORDING, ConsentMissing
from cloning.gateway import plan_limits, provider_voices
from cloning.jobs import activation, runner, submission
from cloning.models import CloneJob
from cloning.samples.acceptance import InspectionFailed, SampleRefused
from voicecare.admin.confirmation import Question, confirm_action
from voicecare.admin.lists import BadgeKind, WordFilter, badge, link_to, timestamp
from voicecare.admin.periods import PeriodAdmin, PeriodFilter
from voicecare.admin.titles import TitledAdmin
from voicecare.api.ranges import range_response
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.care_teams import CareTeamAdmin
from voicecare.patients.clinic_filter import ClinicFilter
from voicecare.patients.models import Patient, Voice

_WITHDRAWAL = Question(
    "Withdraw the consent?",
    "These voices will no longer be used. Their patients hear the default voice, or only the offline voice if no other "
    "voice may speak to them. The voices at the speech provider, the recordings and all speech made with them are "
    "removed, and the removal is checked. Only the record of the withdrawal remains. This cannot be undone.",
    "Yes, withdraw",
)
PARAGRAPH = '<div class="clone-words">{}</div>'
EMPTY = "-"
PLAN_TIMEOUT_S = (1.0, 2.0)  # connect, read; short, because the upload page works without this information
AUDIO = '<audio controls preload="none" src="{}" aria-label="{}"></audio>'


class UploadForm(forms.Form):
    patient = forms.ModelChoiceField(
        Patient.objects.none(),  # those that the user may see
        widget=AutocompleteSelect(CloneJob._meta.get_field("patient"), admin.site),
        help_text="The patient who will hear the voice, from the next conversation on.",
    )
    name = forms.CharField(max_length=100, label="Name of the voice", help_text="For example: Anna, her daughter.")
    sample = forms.FileField(
        allow_empty_file=True,
        label="Recording",
        help_text="MP3, WAV or M4A. At least 60 seconds of one person who speaks in a quiet room, at most 10 MB.",
        widget=forms.FileInput(attrs={"accept": ".mp3,.wav,.m4a,audio/*"}),
    )
    remove_background_noise = forms.BooleanField(
        required=False, help_text="Only for a noisy recording. It makes a clean recording worse."
    )
    consent_by = forms.CharField(
        max_length=200, label="Whose voice it is", help_text="The person who speaks in the recording and has consented."
    )
    consent = forms.BooleanField(label="This person has agreed to the text above, and I am the witness.")

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args, **kwargs)
        patients = Patient.objects.visible_to(user).active()
        cast(forms.ModelChoiceField, self.fields["patient"]).queryset = patients


class VoiceStateFilter(WordFilter):
    """The created voice. A clone that is not ready has none."""

    title = "voice"
    parameter_name = "voice"
    conditions = {
        "usable": ("Can be used", Q(voice__state=Voice.State.USABLE)),
        "verification": ("Waits for verification", Q(requires_verification=True)),
        "gone": ("Gone", Q(voice__state=Voice.State.GONE)),
        "withdrawn": ("Consent withdrawn", Q(voice__state=Voice.State.WITHDRAWN)),
        "none": ("None", Q(voice=None)),
    }


@admin.register(CloneJob)
class CloneJobAdmin(CareTeamAdmin, TitledAdmin, PeriodAdmin):
    period_field = "created_at"
    default_days = 365
    id_parameters = ("patient__id__exact", "status__in")
    list_display = ("state", "name", "patient_link", "notes", "created")
    list_display_links = ("name",)
    list_filter = (PeriodFilter, ClinicFilter, "status", VoiceStateFilter)
    list_select_related = ("patient", "voice")
    search_fields = ("name", "patient__name", "patient__preferred_name")
    actions = ("retry", "revert", "withdraw")
    fieldsets = (
        (None, {"fields": ("patient", "name", "status", "problem", "recording", "preview")}),
        ("Audio quality", {"fields": ("audio_quality", "repairs", "warnings", "noise_removal")}),
        ("Consent", {"fields": ("consent_by", "consented_at", "witness", "consent_wording")}),
        (
            "Processing",
            {
                "fields": (
                    *("voice", "previous_voice", "verification", "created_at", "ended_at"),
                    *("withdrawn_at", "withdrawn_by"),
                )
            },
        ),
        ("Internals", {"classes": ("collapse",), "fields": ("id", "attempts", "next_attempt_at")}),
    )

    class Media:
        css = {"all": ("voicecare/clones.css",)}

    def title_of(self, obj: CloneJob) -> str:
        return f"{obj.name}, for {obj.patient}" if obj.patient else obj.name

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_act_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("cloning.change_clonejob")

    def get_urls(self) -> list[URLPattern]:
        sample = self.admin_site.admin_view(self.sample_view)
        own = [path("<uuid:job_id>/sample/", sample, name="cloning_clonejob_sample")]
        return [*own, *super().get_urls()]

    # Upload

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Shows the upload form, and submits it.

        This replaces Django's own view, which keeps a database transaction open for the whole request. The inspection
        of a recording takes seconds, and on SQLite an open transaction blocks all other writers.
        """
        if not self.has_add_permission(request):
            raise PermissionDenied
        submitted = request.method == "POST"
        user = cast(User, request.user)
        form = (
            UploadForm(user, request.POST, request.FILES) if submitted else UploadForm(user, initial=request.GET.dict())
        )
        if submitted and form.is_valid():
            fields = {name: value for name, value in form.cleaned_data.items() if name != "consent"}
            try:
                on_submit = partial(record, request, Action.ADD)
                job = submission.submit(witness=user, on_submit=on_submit, **fields)
            except (SampleRefused, InspectionFailed, submission.RecordingNotStored) as error:
                form.add_error("sample", error.message)
            except ConsentMissing as error:
                form.add_error("consent_by", error.message)
            else:
                text = "The recording is suitable. The voice clone is in progress."
                self.message_user(request, text, messages.SUCCESS)
                return HttpResponseRedirect(reverse("admin:cloning_clonejob_change", args=[job.pk]))
        with provider_voices.account_client(PLAN_TIMEOUT_S) as client:
            subscription = provider_voices.read_subscription(client)
        plan_usage = plan_limits.describe(subscription) if subscription else ""
        page = {"opts": self.opts, "title": "Clone a voice", "form": form, "wording": WORDING, "plan_usage": plan_usage}
        template = "admin/cloning/clonejob/upload.html"
        return TemplateResponse(
            request, template, {**self.admin_site.each_context(request), "media": form.media, **page}
        )

    # Status and playback

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        can_act = {"can_act": self.has_act_permission(request)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **can_act})

    def sample_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
        """Returns the recording of a job as audio, for users who may view the job.

        Each request is in the audit trail, also one for a part of the recording. Raises PermissionDenied (403) without
        the permission, and Http404 if the recording is deleted.
        """
        job = get_object_or_404(self.get_queryset(request), pk=job_id)
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        if not job.sample:
            raise Http404("The recording is deleted.")
        record(request, Action.PLAY_RECORDING, job)
        try:
            with job.open_sample() as recording:
                return range_response(recording, job.content_type, request.headers.get("Range", ""))
        except FileNotFoundError as error:
            raise Http404("The recording no longer exists.") from error

    @admin.display(description="Status")
    def state(self, job: CloneJob) -> str:
        kinds: dict[str, BadgeKind] = {CloneJob.Status.READY: "good", CloneJob.Status.FAILED: "bad"}
        return badge(kinds.get(job.status, "plain"), job.get_status_display())

    @admin.display(description="Patient")
    def patient_link(self, job: CloneJob) -> str:
        return link_to(job.patient)

    @admin.display(description="Created")
    def created(self, job: CloneJob) -> str:
        return timestamp(job.created_at)

    @admin.display(description="Problem")
    def problem(self, job: CloneJob) -> str:
        return format_html(PARAGRAPH, job.error["message"]) if job.error else EMPTY

    @admin.display(description="Notes")
    def notes(self, job: CloneJob) -> str:
        """The column "Notes" in the list of clones: the problem of the job if it has one, otherwise the warnings.

        No warnings are shown for a withdrawn job, because its recording is no longer used.
        """
        if job.error or job.status == CloneJob.Status.WITHDRAWN:
            return self.problem(job)
        return self.warnings(job)

    @admin.display(description="Recording")
    def recording(self, job: CloneJob) -> str:
        if not job.sample:
            return "Deleted."
        return format_html(AUDIO, reverse("admin:cloning_clonejob_sample", args=[job.pk]), "The recording")

    @admin.display(description="Preview")
    def preview(self, job: CloneJob) -> str:
        if job.voice is None or not job.voice.is_usable:
            return "No voice is available."
        return format_html(AUDIO, reverse("admin-voice-preview", args=[job.voice_id]), "A preview of the voice")

    @admin.display(description="Measurements")
    def audio_quality(self, job: CloneJob) -> str:
        report = job.report
        if not report:
            return ""
        channels = {1: "mono", 2: "stereo"}.get(report["channels"], f"{report['channels']} channels")
        audio_format = f"{report['codec']}, {report['sample_rate_hz']:,} Hz, {channels}"
        measured = [
            ("Length", report["duration_s"], "{:.0f} s"),
            ("Speech", report["speech_ratio"], "{:.0%}"),
            ("Voice above background noise", report["snr_db"], "{:.0f} dB"),
            ("Distorted (clipped)", report["clipping_ratio"], "{:.2%}"),
            ("Loudness", report["loudness_dbfs"], "{:.0f} dBFS"),
        ]
        figures = [
            ("Format", audio_format),
            *((name, form.format(value)) for name, value, form in measured if value is not None),
        ]
        return format_html_join("", "<div>{}: {}</div>", figures)

    @admin.display(description="Warnings")
    def warnings(self, job: CloneJob) -> str:
        return format_html_join("", PARAGRAPH, ((warning,) for warning in job.report.get("warnings", ()))) or EMPTY

    @admin.display(description="Repaired")
    def repairs(self, job: CloneJob) -> str:
        return format_html_join("", PARAGRAPH, ((text,) for text in job.report.get("repairs", ()))) or EMPTY

    @admin.display(description="Background noise")
    def noise_removal(self, job: CloneJob) -> str:
        if job.remove_background_noise:
            return "Removed by the provider"
        if job.report.get("noise_removal_helps"):
            return "Left as it is. Removing it may give a better voice: upload the recording again, and choose that."
        return "Left as it is"

    @admin.display(description="Verification by the provider")
    def verification(self, job: CloneJob) -> str:
        return "Required" if job.requires_verification else "Not required"

    # Actions

    @admin.action(description="Retry with the stored recording", permissions=["act"])
    def retry(self, request: HttpRequest, jobs: QuerySet[CloneJob]) -> None:
        for job in jobs:
            try:
                runner.retry(job)
            except runner.NotRetryable as error:
                self.message_user(request, f"{job.name}: {error.message}", messages.WARNING)
            else:
                self.message_user(request, f"{job.name}: the clone is in progress again.")

    @admin.action(description="Revert to previous voice, from the next conversation on", permissions=["act"])
    def revert(self, request: HttpRequest, jobs: QuerySet[CloneJob]) -> None:
        for job in jobs:
            if activation.revert_to_previous_voice(job):
                record(request, "revert", job)  # the patient's row has changed, not the selected one
                self.message_user(
                    request, f"{job.patient} hears the previous voice again, from the next conversation on."
                )
            else:
                self.message_user(request, f"{job.name} is not the current voice of its patient.", messages.WARNING)

    @admin.action(description="Withdraw: remove the voice and the recording permanently", permissions=["act"])
    def withdraw(self, request: HttpRequest, jobs: QuerySet[CloneJob]) -> HttpResponse | None:
        if page := confirm_action(self, request, _WITHDRAWAL, jobs, self.title_of):
            return page
        for job in jobs:
            withdrawal.withdraw(job, cast(User, request.user))
        words = ngettext("%d voice clone is being removed.", "%d voice clones are being removed.", len(jobs))
        self.message_user(request, words % len(jobs))
        return None
