"""The statement of a month for people: names for those who may see them, and complete CSV files."""

import csv
import io
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.urls import reverse
from django.utils.formats import date_format

from usage.ledger.rollup import month_after
from usage.prices import plain
from usage.reports import queries
from usage.reports.queries import UsageShare
from usage.reports.statement import Statement, read_statement
from voicecare.dashboard.chart import csv_cell
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Clinic, Patient
from voicecare.patients.models.patient import sees_all_patients

SUBJECTS = {"clinics": "Clinic", "patients": "Patient", "voices": "Voice"}
ROWS_OF_THE_PAGE = 100  # the CSV files have all rows
ROWS_PER_CHUNK = 200


@dataclass(frozen=True, slots=True)
class Line:
    """The usage of one patient, voice or clinic. `name` is empty if it is erased, removed, or may not be seen.

    `clinic` is the name of the clinic of a patient, or empty.
    """

    name: str
    share: UsageShare
    clinic: str = ""


class StatementPage:
    """The statement of the month that begins on `month`, as far as the user may see it.

    It is that of all patients, or of those who belong to `clinic` now.
    """

    def __init__(self, permissions: AdminPermissions, month: date, clinic: Clinic | None = None) -> None:
        self._permissions = permissions
        self.clinic = clinic
        self.statement: Statement = read_statement(month, clinic.pk if clinic else None)

    @property
    def currency(self) -> str:
        """The currency of the costs. Empty if no price was valid in the month: then there is no cost."""
        return settings.PRICE_CURRENCY if self.statement.prices else ""

    @property
    def prices(self) -> list[str]:
        """For example "0.22 EUR for eleven_flash_v2_5 from 2026-11-01"."""
        return [
            f"{plain(price.per_1000_credits)} {self.currency} for {price.model or 'all other models'} "
            f"from {date_format(price.valid_from)}"
            for price in self.statement.prices
        ]

    @cached_property
    def clinic_choices(self) -> list[Clinic]:
        """The clinics that the user sees. Empty if there is none."""
        return list(self._permissions.visible_clinics())

    @cached_property
    def _clinic_of(self) -> dict[Any, uuid.UUID | None]:
        """The id of the clinic of each patient who has one."""
        if not self.clinic_choices:
            return {}
        return dict(Patient.objects.exclude(clinic=None).order_by().values_list("pk", "clinic_id"))

    @property
    def tables(self) -> list[tuple[str, str, list[Line], int, str]]:
        """For each table: its title, its heading, its first lines, the number of other lines, and its CSV file."""
        month = self.statement.month
        found = []
        for subject, heading in SUBJECTS.items():
            if subject == "clinics" and (self.clinic or not self.clinic_choices):
                continue
            shares, rows = self._visible_shares(subject)
            lines = self._lines(shares[:ROWS_OF_THE_PAGE], rows)
            url = reverse("admin:statement-csv", args=[month.year, f"{month:%m}", subject]) + self._query
            found.append((f"By {heading.lower()}", heading, lines, len(shares) - len(lines), url))
        return found

    @property
    def previous_url(self) -> str:
        year, month = divmod(self.statement.month.year * 12 + self.statement.month.month - 2, 12)
        return reverse("admin:statement", args=[year, f"{month + 1:02}"]) + self._query

    @property
    def next_url(self) -> str:
        """The URL of the next month's statement. Empty for the current month."""
        following = month_after(self.statement.month)
        is_future = following > queries.today()
        url = reverse("admin:statement", args=[following.year, f"{following:%m}"]) + self._query
        return "" if is_future else url

    @property
    def _query(self) -> str:
        return f"?clinic={self.clinic.pk}" if self.clinic else ""

    def csv_response(self, subject: str) -> StreamingHttpResponse:
        """Returns all rows of one subject, largest first, as a streamed CSV file in UTF-8 with a byte order mark.

        Usage without a patient or voice has an empty id. The costs are exact.
        """
        lines = self._lines(*self._visible_shares(subject))
        response = StreamingHttpResponse(_chunks(self._cells(subject, lines)), content_type="text/csv; charset=utf-8")
        name = f"voicecare-{self.statement.month:%Y-%m}-{subject}.csv"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    def _cells(self, subject: str, lines: Sequence[Line]) -> Iterator[list[Any]]:
        costs = ("Cost", "Currency", "Credits without a price") if self.currency else ()
        clinic = ("Clinic",) if subject == "patients" else ()
        sums = ("Characters", "Saved characters", "Credits", "Requests")
        yield ["Month", SUBJECTS[subject], "Name", *clinic, *sums, *costs]
        month, currency = f"{self.statement.month:%Y-%m}", self.currency
        for line in lines:
            share = line.share
            cost = (share.cost, currency, share.unpriced_credits) if currency else ()
            of_clinic = (line.clinic,) if clinic else ()
            figures = (share.characters, share.saved, share.credits, share.requests)
            yield [month, str(share.key or ""), line.name, *of_clinic, *figures, *cost]

    @property
    def is_limited(self) -> bool:
        """Whether the lines are only those of the user's care teams. The totals are those of all patients."""
        return not sees_all_patients(self._permissions.user)

    def _visible_shares(self, subject: str) -> tuple[list[UsageShare], QuerySet[Any]]:
        """The shares of all patients, voices or clinics, largest first, and the rows with their names.

        Patients without a clinic, and usage without a patient, are one share of a clinic together. A user who sees only
        their care teams' patients gets the shares of the rows only.
        """
        rows: QuerySet[Any]
        if subject == "patients":
            shares = self.statement.patients
            rows = Patient.objects.shown_in_admin_to(self._permissions.user).filter(erased_at=None)
        elif subject == "voices":
            shares, rows = self.statement.voices, self._permissions.visible_voices()
        else:
            shares = queries.by_group(self.statement.patients, self._clinic_of)
            rows = self._permissions.visible_clinics()
        if self.is_limited:
            visible = set(rows.order_by().values_list("pk", flat=True))
            shares = [share for share in shares if share.key in visible]
        return shares, rows

    def _lines(self, shares: Sequence[UsageShare], rows: QuerySet[Any]) -> list[Line]:
        names: dict[Any, str] = {}
        if self._permissions.can_view(rows.model):
            if len(shares) <= ROWS_OF_THE_PAGE:  # else nearly all
                rows = rows.filter(pk__in=[share.key for share in shares if share.key])
            names = dict(rows.order_by().values_list("pk", "name"))
        clinics: dict[Any, str] = {}
        if rows.model is Patient:
            clinics = {clinic.pk: clinic.name for clinic in self.clinic_choices}
        return [
            Line(
                names.get(share.key, ""),
                share,
                clinics.get(self._clinic_of.get(share.key), "") if clinics else "",
            )
            for share in shares
        ]


async def _chunks(rows: Iterator[list[Any]]) -> AsyncIterator[str]:
    """Yields the rows as CSV, some at a time. Asynchronous, because the server's responses are."""
    buffer = io.StringIO("\ufeff")
    buffer.seek(0, io.SEEK_END)
    writer = csv.writer(buffer)
    for number, cells in enumerate(rows, 1):
        writer.writerow([csv_cell(cell) for cell in cells])
        if number % ROWS_PER_CHUNK == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
