"""What a service refused, put beside the fields of the form that asked for it."""

from __future__ import annotations

from django import forms

from controlplane.common.errors import RemitError


def show_error(form: forms.Form, error: RemitError) -> RemitError | None:
    """Adds field errors to a bound, valid form. The error itself is returned when something is left to say above it."""
    if error.status not in (409, 422):
        raise error
    left = False
    for problem in error.errors:
        name = problem.pointer.strip("/").split("/")[0]
        if name in form.fields:
            form.add_error(name, problem.message)
        else:
            left = True
    return error if left or not error.errors else None
