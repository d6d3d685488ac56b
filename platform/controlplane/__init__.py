"""The Django project and what every pillar stands on.

Exports the Celery app, else `.delay()` silently goes to localhost.
"""

from controlplane.celery import app as celery_app

__all__ = ["celery_app"]
