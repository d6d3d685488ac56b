"""The form for another size of a running sandbox."""

from __future__ import annotations

from typing import Any

from django import forms

from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import LARGEST, MIB, SMALLEST, Resources
from frontend.templatetags.amounts import bytes_text


class ResizeForm(forms.Form):
    """What of a sandbox can be changed while it runs."""

    cpu_millicores = forms.IntegerField(
        label="CPU",
        min_value=SMALLEST.cpu_millicores,
        max_value=LARGEST.cpu_millicores,
        localize=False,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
        help_text="A thousand are one core.",
    )
    memory_mib = forms.IntegerField(
        label="Memory",
        min_value=SMALLEST.memory_bytes // MIB,
        max_value=LARGEST.memory_bytes // MIB,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )

    def __init__(self, sandbox: Sandbox, data: Any = None) -> None:
        desired = Resources(**sandbox.desired_resources)
        initial = {"cpu_millicores": desired.cpu_millicores, "memory_mib": desired.memory_bytes // MIB}
        super().__init__(data, initial=initial)
        for field in self.fields.values():
            least, most = field.min_value, field.max_value  # type: ignore[attr-defined]
            field.error_messages |= dict.fromkeys(
                ("invalid", "required", "min_value", "max_value"), f"A whole number from {least:,} to {most:,}."
            )
            for validator in field.validators:
                validator.message = field.error_messages["invalid"]  # type: ignore[attr-defined]
        if sandbox.peak_memory_bytes:
            self.fields["memory_mib"].help_text = f"Its peak so far is {bytes_text(sandbox.peak_memory_bytes)}."
