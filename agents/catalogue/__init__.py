"""Mission templates (“golden paths”): a mission from at most four fields."""

from agents.catalogue.readiness import Readiness, readiness_of, samples_installing
from agents.catalogue.registered import agents_for, startable_agent
from agents.catalogue.templates import TEMPLATES, remit_of, start_from_template, template, template_of
from agents.catalogue.types import Template

__all__ = [
    "TEMPLATES",
    "Readiness",
    "Template",
    "agents_for",
    "readiness_of",
    "remit_of",
    "samples_installing",
    "start_from_template",
    "startable_agent",
    "template",
    "template_of",
]
