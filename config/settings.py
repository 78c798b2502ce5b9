"""All settings. What differs between machines comes from the environment; the README lists each variable."""

import os
from datetime import timedelta
from pathlib import Path

from config import environment

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = environment.switch("DEBUG")
SECRET_KEY = environment.secret("SECRET_KEY", BASE_DIR / ".secret_key")
ALLOWED_HOSTS = environment.hosts("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
HTTPS = environment.switch("HTTPS")
TRUSTED_PROXIES = environment.whole_number("TRUSTED_PROXIES", 0, lowest=0, highest=16)
HOST = environment.text("HOST", "127.0.0.1")
PORT = environment.whole_number("PORT", 8000, lowest=1, highest=65535)
WEB_CONCURRENCY = environment.whole_number("WEB_CONCURRENCY", os.cpu_count() or 1, lowest=1, highest=1000)
TOKEN_TTL = environment.whole_number("TOKEN_TTL", 36_000, lowest=1, highest=3_153_600_000)  # seconds, up to a century
PASSWORD_MIN_LENGTH = environment.whole_number("PASSWORD_MIN_LENGTH", 8, lowest=1, highest=1024)
CORS_ALLOWED_ORIGINS = environment.origins("CORS_ALLOWED_ORIGINS")
LIMIT_LOGIN = environment.limit("LIMIT_LOGIN", "20/300")
LIMIT_LOGIN_ADDRESS = environment.limit("LIMIT_LOGIN_ADDRESS", "500/300" if LIMIT_LOGIN else "off")
LIMIT_LOGIN_NAME = environment.limit("LIMIT_LOGIN_NAME", "100/3600" if LIMIT_LOGIN else "off")
LIMIT_PASSWORD = environment.limit("LIMIT_PASSWORD", "20/300")
LIMIT_SIGNUP = environment.limit("LIMIT_SIGNUP", "1000/3600")
LIMIT_SEND = environment.limit("LIMIT_SEND", "3000/60")
LOG_DIR = environment.folder("LOG_DIR", BASE_DIR / "logs")
DATABASES = {"default": environment.database("DATABASE_URL", BASE_DIR / "db.sqlite3")}

INSTALLED_APPS = [
    "config.apps.OperatorAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "corsheaders",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "accounts",
    "blocking",
    "messageservice",
]

MIDDLEWARE = [
    "config.api.middleware.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "config.api.middleware.BodyLimitMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

DEBUG_PROPAGATE_EXCEPTIONS = True  # up to RequestMiddleware, which answers for them with DEBUG on or off

ROOT_URLCONF = "config.urls"
APPEND_SLASH = False
WSGI_APPLICATION = "config.wsgi.application"
TEST_RUNNER = "config.testing.runner.TestRunner"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "api" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2**20  # bytes

TIME_ZONE = "UTC"
USE_I18N = False

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "config" / "api" / "static"]
WHITENOISE_USE_FINDERS = True  # files come from where their packages keep them, without a collectstatic
WHITENOISE_ALLOW_ALL_ORIGINS = False

PASSWORD_HASHERS = [
    "accounts.hashers.OwaspArgon2Hasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",  # Django's default: accounts from before log in, and are renewed
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["username"]},
    },
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": PASSWORD_MIN_LENGTH},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": [
        "config.api.parsers.JSONParser",
        "config.api.parsers.FormParser",
        "config.api.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "config.api.schema.ServiceSchema",
    "EXCEPTION_HANDLER": "config.api.errors.exception_handler",
    "DATETIME_FORMAT": "%Y-%m-%dT%H:%M:%S.%fZ",
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Offline Messaging API",
    "DESCRIPTION": "Users write to each other by username, read their past messages, and block anyone who bothers them.",
    "VERSION": "1.0.0",
    "SERVERS": [{"url": "/", "description": "This service"}],
    "POSTPROCESSING_HOOKS": ["config.api.schema.add_error_schemas"],
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATIONS": False,  # as in the urls: register comes before log-out, sending before reading
    "TAGS": [
        {"name": "accounts", "description": "Register, log in, log out, and manage your account"},
        {"name": "messages", "description": "Send and read messages"},
        {"name": "blocking", "description": "Block and unblock users"},
        {"name": "service", "description": "Check that the service runs"},
    ],
}

REST_KNOX = {"TOKEN_TTL": timedelta(seconds=TOKEN_TTL)}

CORS_URLS_REGEX = "^/api/"
CORS_ALLOW_HEADERS = ["authorization", "content-type", "idempotency-key", "x-request-id"]
CORS_EXPOSE_HEADERS = ["Location", "Retry-After", "X-Request-ID", "Idempotency-Replayed"]

# The proxy in front says whether its client came by HTTPS; without one, anybody could say so.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = ["^healthz$", "^readyz$"]  # a load balancer asks from inside
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SESSION_COOKIE_AGE = TOKEN_TTL  # operators' sessions, as the tokens of users
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
# On every answer that does not say otherwise, also on what no middleware of Django's sees: an answer may hold tokens and
# private messages, and nothing in it is for a browser to load, run or show in a frame.
ANSWER_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
ADMIN_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for the operator's other host names,
    "security.W021",  # and for the browsers' preload list: the operator's to decide, not this service's
]


def _log_file(name: str) -> dict[str, str]:
    file = str(LOG_DIR / f"{name}.log")
    return {"()": "config.log.AppendHandler", "filename": file, "delay": True, "formatter": "json"}


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "config.log.JsonFormatter"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler"},
        "requests": _log_file("requests"),
        "activity": _log_file("activity"),
        "debug": _log_file("debug"),
    },
    "loggers": {
        "requests": {"handlers": ["requests"], "level": "INFO", "propagate": False},
        "activity": {"handlers": ["activity"], "level": "INFO", "propagate": False},
        "debug": {"handlers": ["debug"], "level": "DEBUG", "propagate": False},
        "django": {"handlers": ["console"], "level": "ERROR"},  # a refused request has its line in requests.log
    },
}
