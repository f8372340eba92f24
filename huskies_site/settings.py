"""The one settings file. Values come from the environment and `.env`; the table of them is in the README."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from huskies_site import environment as env

BASE_DIR = Path(__file__).resolve().parent.parent
env.load_env_file(BASE_DIR / ".env")

HUSKIES_HOME = Path(env.text("HUSKIES_HOME", str(BASE_DIR / "data"))).expanduser().absolute()
HUSKIES_BIND = env.bind(env.text("HUSKIES_BIND", "127.0.0.1:8000"))
HUSKIES_URL = env.text("HUSKIES_URL").rstrip("/")
HUSKIES_HOST = env.text("HUSKIES_HOST", os.uname().nodename)
HUSKIES_SERVER_LIMIT = env.integer("HUSKIES_SERVER_LIMIT", 8, low=1, high=10_000)
HUSKIES_WORKERS = env.integer("HUSKIES_WORKERS", 2, low=1, high=64)
HUSKIES_TICK_MS = env.integer("HUSKIES_TICK_MS", 20, low=5, high=1000)
HUSKIES_PUSH_MS = env.integer("HUSKIES_PUSH_MS", 50, low=5, high=1000)
HUSKIES_SWEEP_MS = env.integer("HUSKIES_SWEEP_MS", 2000, low=100, high=60_000)
HUSKIES_UNCONFINED = env.flag("HUSKIES_UNCONFINED")
HUSKIES_PRICES = env.text("HUSKIES_PRICES", "prices.yaml")
HUSKIES_PREFLIGHT = env.flag("HUSKIES_PREFLIGHT", True)
HUSKIES_PERMISSION_WAIT = env.integer("HUSKIES_PERMISSION_WAIT", 600, low=10, high=3000)
HUSKIES_HOST_LOST_AFTER = env.integer("HUSKIES_HOST_LOST_AFTER", 600, low=60, high=30 * 86_400)

DEBUG = env.flag("HUSKIES_DEBUG")


def secret_key() -> str:
    """The key that `up` made in the data folder; HUSKIES_SECRET_KEY wins. Without either, a key for this process alone (tests, checks)."""
    given = env.text("HUSKIES_SECRET_KEY")
    if given:
        return given
    try:
        return (HUSKIES_HOME / "secret.key").read_text(encoding="utf-8").strip()
    except OSError:
        import secrets

        return secrets.token_urlsafe(64)


SECRET_KEY = secret_key()
SECRET_KEY_FALLBACKS = [key for key in env.text("HUSKIES_OLD_SECRET_KEYS").split(",") if key]

LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]
if HUSKIES_URL:
    parts = urlsplit(HUSKIES_URL)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImproperlyConfigured(
            f"HUSKIES_URL={HUSKIES_URL!r} is not an address such as https://huskies.example.org."
        )
    ALLOWED_HOSTS = [parts.hostname, *LOOPBACK]
    CSRF_TRUSTED_ORIGINS = [f"{parts.scheme}://{parts.netloc}"]
    SECURE = parts.scheme == "https"
else:
    ALLOWED_HOSTS = [*LOOPBACK, *([HUSKIES_BIND[0]] if HUSKIES_BIND[0] not in ("0.0.0.0", "::") else [])]  # noqa: S104
    SECURE = False
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SECURE_SSL_REDIRECT = False
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if SECURE else None
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE
SILENCED_SYSTEM_CHECKS = [
    "security.W008"
]  # the proxy in front redirects to https; loopback must stay reachable without
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "huskies_session", "huskies_csrf"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

INSTALLED_APPS = [
    "channels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_q",
    "pipeline.apps.PipelineConfig",
    "agents.apps.AgentsConfig",
    "huskies_site.apps.SiteConfig",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "huskies_site.headers.content_security_policy",
]
ROOT_URLCONF = "huskies_site.urls"
ASGI_APPLICATION = "huskies_site.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LOGIN_URL, LOGIN_REDIRECT_URL, LOGOUT_REDIRECT_URL = "login", "home", "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

DATABASES = {"default": env.database(env.text("DATABASE_URL"), HUSKIES_HOME)}
ATOMIC_REQUESTS = False
if DATABASES["default"]["ENGINE"] == "huskies_site.sqlite":
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 0,  # our backend waits: a constant millisecond instead of SQLite's back-off
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA temp_store=MEMORY;PRAGMA journal_size_limit=67108864;",
    }
DATABASES["default"]["CONN_MAX_AGE"] = 0
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

Q_CLUSTER = {
    "name": "huskies",
    "orm": "default",
    "broker_class": "pipeline.broker.WakingBroker",
    "workers": HUSKIES_WORKERS,
    "queue_limit": HUSKIES_WORKERS,
    "bulk": 1,
    "poll": 0.2,
    "timeout": 60,
    "retry": 120,
    "max_attempts": 3,
    "ack_failures": True,
    "save_limit": -1,
    "recycle": 5000,
    "catch_up": False,
    "scheduler": False,
}

LANGUAGE_CODE, TIME_ZONE, USE_TZ, USE_I18N = "en", "UTC", True, False
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_MANIFEST_STRICT = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("HUSKIES_LOG_LEVEL", "WARNING")},
    "loggers": {"huskies": {"level": env.text("HUSKIES_LOG_LEVEL", "INFO")}},
}
