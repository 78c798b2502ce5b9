"""All settings. Those that differ between machines come from environment variables, which docs/operating.md lists."""

from datetime import timedelta
from pathlib import Path

from config import environment
from config.cpus import usable_cpus
from config.database.url import database

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = environment.boolean("DEBUG")
SECRET_KEY = environment.secret("SECRET_KEY", BASE_DIR / ".secret_key")
ALLOWED_HOSTS = environment.hosts("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
HTTPS = environment.boolean("HTTPS")
TRUSTED_PROXIES = environment.integer("TRUSTED_PROXIES", 0, lowest=0, highest=16)
if HTTPS and not TRUSTED_PROXIES:
    environment.abort("HTTPS", "the service itself speaks HTTP: put a proxy in front of it, and set TRUSTED_PROXIES")
HOST = environment.text("HOST", "127.0.0.1")
PORT = environment.integer("PORT", 8000, lowest=1, highest=65535)
WEB_CONCURRENCY = environment.integer("WEB_CONCURRENCY", usable_cpus(), lowest=1, highest=1000)
TOKEN_TTL = environment.integer("TOKEN_TTL", 36_000, lowest=1, highest=3_153_600_000)  # seconds, up to a century
PASSWORD_MIN_LENGTH = environment.integer("PASSWORD_MIN_LENGTH", 8, lowest=1, highest=1024)
CORS_ALLOWED_ORIGINS = environment.origins("CORS_ALLOWED_ORIGINS")
METRICS = environment.address("METRICS")
if METRICS and METRICS[1] == PORT:
    environment.abort("METRICS", f"the service itself uses port {PORT}")
LIMIT_LOGIN = environment.limit("LIMIT_LOGIN", "20/300")
LIMIT_LOGIN_ADDRESS = environment.limit("LIMIT_LOGIN_ADDRESS", "500/300" if LIMIT_LOGIN else "off")
LIMIT_LOGIN_NAME = environment.limit("LIMIT_LOGIN_NAME", "100/3600" if LIMIT_LOGIN else "off")
LIMIT_PASSWORD = environment.limit("LIMIT_PASSWORD", "20/300")
LIMIT_SIGNUP = environment.limit("LIMIT_SIGNUP", "1000/3600")
LIMIT_SEND = environment.limit("LIMIT_SEND", "3000/60")
LOG_DIR = None if environment.text("LOG_DIR") == "-" else environment.folder("LOG_DIR", BASE_DIR / "logs")
DATABASES = {"default": database("DATABASE_URL", BASE_DIR / "db.sqlite3")}

INSTALLED_APPS = [
    "config.apps.OperatorAdminConfig",
    "knox",
    "accounts",  # before auth, whose `changepassword` it extends, and after knox, whose page in the admin it replaces
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
    "config.database",
    "blocking",
    "messageservice",
]

MIDDLEWARE = [
    *(["config.metrics.MetricsMiddleware"] if METRICS else []),
    "config.api.middleware.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "config.server.middleware.OverloadMiddleware",
    "config.api.middleware.BodyLimitMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

DEBUG_PROPAGATE_EXCEPTIONS = True  # RequestMiddleware turns every exception into JSON, with DEBUG on or off

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
FORMAT_MODULE_PATH = "config.formats"

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "config" / "api" / "static"]
COLLECTED_FILES = BASE_DIR / "dev" / "static"  # where `make dev/installed` collects and compresses them
STATIC_ROOT = COLLECTED_FILES if COLLECTED_FILES.is_dir() else None
STORAGES = {"staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"}}
WHITENOISE_USE_FINDERS = STATIC_ROOT is None  # then each file is served from its package
WHITENOISE_ALLOW_ALL_ORIGINS = False

PASSWORD_HASHERS = [
    "accounts.hashers.OwaspArgon2Hasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",  # Django's default; a login renews such hashes
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "accounts.validators.UserAttributeSimilarityValidator", "OPTIONS": {"user_attributes": ["username"]}},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": PASSWORD_MIN_LENGTH},
    },
    {"NAME": "accounts.validators.CommonPasswordValidator"},
    {"NAME": "accounts.validators.NumericPasswordValidator"},
]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": [f"config.api.parsers.{name}" for name in ("JSONParser", "FormParser", "MultiPartParser")],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "config.api.schema.ServiceSchema",
    "EXCEPTION_HANDLER": "config.api.errors.exception_handler",
    "DATETIME_FORMAT": "%Y-%m-%dT%H:%M:%S.%fZ",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Offline Messaging API",
    "DESCRIPTION": "Users write to each other by username, read their past messages, and block anyone who bothers them.",
    "VERSION": "1.0.0",
    "CONTACT": {"name": "The operator of this service"},
    "SERVERS": [{"url": "/", "description": "This service"}],
    "PARSER_WHITELIST": ["config.api.parsers.JSONParser"],  # client generators fail at several media types for one body
    "POSTPROCESSING_HOOKS": ["config.api.schema.add_error_schemas"],
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATIONS": False,  # in the order of the URL patterns
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

# Only a proxy may set the header: without a proxy, every client could claim to use HTTPS.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = ["^healthz$", "^readyz$"]  # load balancers use plain HTTP
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
LOGIN_REDIRECT_URL = "admin:index"
SESSION_COOKIE_AGE = TOKEN_TTL  # seconds; a session in the admin ends as a token does
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
# Defaults for every response. It may hold tokens and private messages, and browsers must not load, run or frame any of it.
RESPONSE_HEADERS = {
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
# HSTS for other host names (W005) and for the browsers' preload list (W021) is the operator's decision.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

LOGS = ("requests", "activity", "debug")
if LOG_DIR:
    LOG_HANDLERS = {name: {"()": "config.log.AppendHandler", "file": LOG_DIR / f"{name}.log"} for name in LOGS}
else:
    LOG_HANDLERS = {"stdout": {"()": "config.log.StandardOutputHandler"}}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}, **LOG_HANDLERS},
    "loggers": {
        **{name: {"handlers": [name if LOG_DIR else "stdout"], "level": "DEBUG", "propagate": False} for name in LOGS},
        "django.request": {"level": "CRITICAL"},  # requests.log already has a line for each 4xx and 5xx
        "django.utils.autoreload": {"handlers": ["console"], "level": "INFO", "propagate": False},
    },
}
