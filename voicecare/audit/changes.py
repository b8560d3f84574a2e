"""What an entry of the audit trail says about a change.

The names of all changed fields are stored. Values are stored of numbers, dates, flags, choices and references to other
rows (as ids) only. Texts that people have entered, and tokens and their digests, are never stored.
"""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import (
    BooleanField,
    CharField,
    DateField,
    DecimalField,
    DurationField,
    FloatField,
    IntegerField,
    Model,
    QuerySet,
    TimeField,
    UUIDField,
)
from django.forms import BaseForm

Changes = dict[str, list[Any] | None]
"""Maps the name of a field to [old, new] value, or to None if the values are not stored."""

_STORED_TYPES = (
    BooleanField,
    DateField,
    DecimalField,
    DurationField,
    FloatField,
    IntegerField,
    TimeField,
    UUIDField,
)


def values_of(row: Model) -> dict[str, Any]:
    """Returns the values of all columns of the row. References are ids."""
    return {field.name: field.value_from_object(row) for field in row._meta.concrete_fields}


def differences(model: type[Model], before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """Returns the fields whose values differ. A field that is missing on one side is None there."""
    found: Changes = {}
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old != new:
            found[name] = [old, new] if _is_stored(model, name) else None
    return found


def of_form(model: type[Model], form: BaseForm, *, is_new: bool) -> Changes:
    """Returns the fields that a valid form has changed. The old values of a new row are None."""
    changes: Changes = {}
    for name in form.changed_data:
        if _is_stored(model, name):
            old = None if is_new else _as_ids(form.get_initial_for_field(form.fields[name], name))
            changes[name] = [old, _as_ids(form.cleaned_data.get(name))]
        else:
            changes[name] = None
    return changes


def _is_stored(model: type[Model], name: str) -> bool:
    try:
        field: Any = model._meta.get_field(name)
    except FieldDoesNotExist:  # a field of a form only, such as a password
        return False
    if field.is_relation:  # a key that is a text can be the digest of a token
        return not isinstance(field.related_model._meta.pk, CharField)
    return bool(field.choices or isinstance(field, _STORED_TYPES))


def _as_ids(value: Any) -> Any:  # noqa: ANN401 - the value of any form field
    if isinstance(value, Model):
        return value.pk
    if isinstance(value, QuerySet | list | tuple | set):
        return sorted(item.pk if isinstance(item, Model) else item for item in value)
    return value
