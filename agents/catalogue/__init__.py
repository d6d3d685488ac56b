"""Mission templates (“golden paths”): a mission from at most four fields."""

from agents.catalogue.readiness import Readiness, readiness_of, samples_installing
from agents.catalogue.templates import TEMPLATES, remit_of, start_from_template, template
from agents.catalogue.types import Template

__all__ = [
    "TEMPLATES",
    "Readiness",
    "Template",
    "readiness_of",
    "remit_of",
    "samples_installing",
    "start_from_template",
    "template",
]
