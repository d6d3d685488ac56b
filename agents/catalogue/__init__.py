"""Mission templates (“golden paths”): a mission from at most four fields."""

from agents.catalogue.templates import TEMPLATES, start_from_template, template
from agents.catalogue.types import Template

__all__ = ["TEMPLATES", "Template", "start_from_template", "template"]
