"""Mission templates (“golden paths”): a mission from at most four fields."""

from agents.catalogue.templates import TEMPLATES, Template, start_from_template, template

__all__ = ["TEMPLATES", "Template", "start_from_template", "template"]
