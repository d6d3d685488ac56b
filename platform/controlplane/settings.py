"""Django settings, derived from `controlplane.config` alone: nothing else in the project reads the environment."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from csp.constants import NONE, SELF
from psycopg.conninfo import conninfo_to_dict

from controlplane.config import ROOT, configuration

CONFIG = configuration()
BASE_DIR = ROOT
DEBUG = CONFIG.debug
# Commands that touch no data (checks, --help, lint) may run without a key; `controlplane.common.checks` refuses to
# serve so.
SECRET_KEY = CONFIG.secret_key or "not-configured-" + "0" * 32
ALLOWED_HOSTS = [host.strip() for host in CONFIG.allowed_hosts.split(",") if host.strip()]
CSRF_TRUSTED_ORIGINS = [CONFIG.public_url]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "rest_framework",
    "drf_spectacular",
    "channels",
    "csp",
    "djmoney",
    "controlplane.embedded",
    "controlplane.common",
    "controlplane.idempotency",
    "controlplane.tenancy",
    "controlplane.audit",
    "controlplane.live",
    "controlplane.clusters",
    "governance",
    "budgets",
    "agents",
    "frontend",
]
MIDDLEWARE = [
    "controlplane.common.observability.RequestContextMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "controlplane.tenancy.sessions.SeenMiddleware",
    "controlplane.tenancy.middleware.PrincipalMiddleware",
    "frontend.middleware.ErrorPagesMiddleware",
]
ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "frontend" / "templates"],  # before the apps': ours replace allauth's
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "frontend.context.frame",
            ],
            "builtins": ["django.contrib.humanize.templatetags.humanize", "frontend.templatetags.remit"],
        },
    }
]


def _database(url: str) -> dict[str, Any]:
    """Django's form of a libpq URL. A pool with CONN_MAX_AGE 0: a positive age leaks connections under ASGI."""
    parts = conninfo_to_dict(url) if url else {}
    known = {"user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT", "dbname": "NAME"}
    options: dict[str, Any] = {key: value for key, value in parts.items() if key not in known}
    # Attempts to reconnect come at growing intervals; starting over every few seconds keeps the intervals short, so
    # that a database that is back after minutes is noticed at once.
    options["pool"] = {"min_size": 1, "max_size": 14, "timeout": 5, "reconnect_timeout": 5}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "CONN_MAX_AGE": 0,
        # The pool asks each connection before lending it: a restarted database costs no caller an error.
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
        **{known[key]: str(value) for key, value in parts.items() if key in known},
    }


DATABASES = {"default": _database(CONFIG.database_url)}
CACHES = {
    "default": {"BACKEND": "controlplane.common.caching.MostlyLocalCache"},
    "shared": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "tenancy_shared_cache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "tenancy.User"
# E-mail addresses are unique without regard to case, which a field option can't say.
# Of `check --deploy`: what follows from PUBLIC_URL (`remit.W001` says it), what the proxy that ends TLS does, what the
# owner of a whole domain decides, and a length of SECRET_KEY that is not the documented one.
SILENCED_SYSTEM_CHECKS = ["auth.W004", *(f"security.W{number:03}" for number in (4, 5, 8, 9, 12, 16, 21))]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False

REDIS_URL = CONFIG.redis_url or "unix:///nonexistent/valkey.sock"
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A killed worker's tasks come back after `visibility_timeout`; with the defaults that is an hour. The timeouts are for
# whoever wakes a task inside a request: a silent broker costs them two seconds once, and a sweep finds the work.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 2,
    "socket_connect_timeout": 2,
    "max_retries": 0,
    "visibility_timeout": 60,
    "unacked_restore_interval": 2,
    "unacked_restore_throttle": 1,
}
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = 50
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_TIMEZONE = "UTC"
# Sweeps are the net under every wake-up: a lost message costs one interval, never the work.
CELERY_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "audit.seal": {"task": "controlplane.audit.tasks.seal", "schedule": 0.5},
    "audit.sign": {"task": "controlplane.audit.tasks.sign", "schedule": 60.0},
    "audit.sweep_jobs": {"task": "controlplane.audit.tasks.sweep_jobs", "schedule": 10.0},
    "audit.make_months": {"task": "controlplane.audit.tasks.make_months", "schedule": 3600.0},
    "budgets.make_months": {"task": "budgets.tasks.make_months", "schedule": 3600.0},
    "clusters.reconcile": {"task": "controlplane.clusters.tasks.reconcile_all", "schedule": 2.0},
    "governance.sweep": {"task": "governance.tasks.sweep", "schedule": 2.0},
    "governance.tell_all": {"task": "governance.tasks.tell_all", "schedule": 2.0},
    "budgets.sweep": {"task": "budgets.tasks.sweep", "schedule": 5.0},
    "budgets.fold_costs": {"task": "budgets.tasks.fold_costs", "schedule": 5.0},
    "budgets.refresh_costs": {"task": "budgets.tasks.refresh_costs", "schedule": 15.0},
    "budgets.check_costs": {"task": "budgets.tasks.check_costs", "schedule": 3600.0},
    "agents.sweep": {"task": "agents.tasks.sweep", "schedule": 2.0},
    "idempotency.sweep": {"task": "controlplane.idempotency.tasks.sweep", "schedule": 600.0},
    "agents.look_at_servers": {"task": "agents.tasks.look_at_servers", "schedule": 15.0},
    "agents.tidy_servers": {"task": "agents.tasks.tidy_servers", "schedule": 3600.0},
}

STATIC_URL = "static/"
STATIC_ROOT = CONFIG.state_dir / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = False

AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_ADAPTER = "controlplane.tenancy.accounts.AccountAdapter"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if CONFIG.secure else "http"
# The count of proxies that append to X-Forwarded-For; without one the peer's own address counts.
ALLAUTH_TRUSTED_PROXY_COUNT = CONFIG.trusted_proxies
MFA_ADAPTER = "controlplane.tenancy.second_factor.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Remit"
MFA_TOTP_TOLERANCE = 1
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_ALLOW_UNVERIFIED_EMAIL = True  # accounts come from invitations and operators, never from signing up
SOCIALACCOUNT_ADAPTER = "controlplane.tenancy.oidc.SocialAccountAdapter"
SOCIALACCOUNT_EMAIL_VERIFICATION = "none"
SOCIALACCOUNT_STORE_TOKENS = False


def oidc_providers(issuer: str, client_id: str, secret: str, name: str) -> dict[str, Any]:
    """django-allauth's form of one OpenID provider; without an issuer a list of none."""
    app = {
        "provider_id": "oidc",
        "name": name,
        "client_id": client_id,
        "secret": secret,
        "settings": {"server_url": issuer.rstrip("/"), "issuer": issuer, "oauth_pkce_enabled": True},
    }
    return {"openid_connect": {"provider_class": "controlplane.tenancy.oidc.Provider", "APPS": [app] if issuer else []}}


SOCIALACCOUNT_PROVIDERS = oidc_providers(
    CONFIG.oidc_issuer, CONFIG.oidc_client_id, CONFIG.oidc_client_secret, CONFIG.oidc_name
)
OIDC_DOMAINS = CONFIG.oidc_domains
PASSWORD_HASHERS = ["django.contrib.auth.hashers.ScryptPasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
SESSION_COOKIE_NAME = "remit_session"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = CONFIG.secure
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = int(timedelta(days=14).total_seconds())
SECURE_HSTS_SECONDS = int(timedelta(days=365).total_seconds()) if CONFIG.secure else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "manifest-src": [SELF],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
# The editor of grants has some ten fields a grant.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
_MAIL = urlsplit(CONFIG.email_url)
_MAIL_OPTIONS = {key: values[-1] for key, values in parse_qs(_MAIL.query).items()}
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if CONFIG.sends_mail else 'console'}.EmailBackend"
EMAIL_HOST = _MAIL.hostname or "localhost"
EMAIL_USE_SSL = _MAIL.scheme == "smtps"
EMAIL_USE_TLS = not EMAIL_USE_SSL and _MAIL_OPTIONS.get("tls", "") not in ("", "0", "false")
EMAIL_PORT = _MAIL.port or (465 if EMAIL_USE_SSL else 587 if EMAIL_USE_TLS else 25)
EMAIL_HOST_USER = unquote(_MAIL.username or "")
EMAIL_HOST_PASSWORD = unquote(_MAIL.password or "")
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = _MAIL_OPTIONS.get("from", f"remit@{urlsplit(CONFIG.public_url).hostname}")

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "frontend.api.authentication.TokenAuthentication",
        "frontend.api.authentication.SessionAuthentication",
    ],
    # Every operation names the permission it needs; `frontend.api.operations` asks for it.
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["frontend.api.parsing.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "frontend.api.schema.Described",
    "EXCEPTION_HANDLER": "frontend.api.problems.problem_details",
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Remit",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "DESCRIPTION": "Everything the pages can do, for programs. How it behaves as a whole: docs/api.md.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1/",
    "ENFORCE_NON_BLANK_FIELDS": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    # Choices stay where they are used: a component for each would need a name that nobody knows.
    "POSTPROCESSING_HOOKS": ["frontend.api.schema.describe_what_is_not_django"],
}

LOGGING_CONFIG = "controlplane.common.observability.configure_logging"
LOGGING: dict[str, Any] = {"level": CONFIG.log_level, "format": CONFIG.log_format}
CURRENCY_DECIMAL_PLACES = 12
STATICFILES_DIRS: list[Path] = []
