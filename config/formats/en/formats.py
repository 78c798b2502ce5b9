"""How the admin shows times."""

DATETIME_FORMAT = "Y-m-d H:i:s e"  # 2026-11-23 22:59:28 UTC
