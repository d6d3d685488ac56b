"""The default cache: in this process, except what counts only when every process counts it together, which is limits of
sign-ins and codes that were used once."""

from __future__ import annotations

from typing import Any, Final

from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

# django-allauth's keys: rate limits and used codes; ids of tokens of an OpenID provider that were seen.
SHARED_PREFIXES: Final = ("allauth", "jwt:")


class MostlyLocalCache(LocMemCache):
    """Keys with a shared prefix go to the cache `shared`, which is a table."""

    def add(self, key: Any, *args: Any, **options: Any) -> bool:
        return bool(caches["shared"].add(key, *args, **options) if _shared(key) else super().add(key, *args, **options))

    def get(self, key: Any, *args: Any, **options: Any) -> Any:
        return caches["shared"].get(key, *args, **options) if _shared(key) else super().get(key, *args, **options)

    def set(self, key: Any, *args: Any, **options: Any) -> None:
        if _shared(key):
            caches["shared"].set(key, *args, **options)
        else:
            super().set(key, *args, **options)

    def delete(self, key: Any, *args: Any, **options: Any) -> bool:
        return bool(
            caches["shared"].delete(key, *args, **options) if _shared(key) else super().delete(key, *args, **options)
        )


def _shared(key: Any) -> bool:
    return str(key).startswith(SHARED_PREFIXES)
