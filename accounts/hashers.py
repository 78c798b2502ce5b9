from django.contrib.auth.hashers import Argon2PasswordHasher


class OwaspArgon2Hasher(Argon2PasswordHasher):
    """Argon2id with the parameters of OWASP's Password Storage Cheat Sheet.

    Django's own parameters cost a log-in ten times as much.
    """

    memory_cost = 19 * 1024  # KiB
    time_cost = 2
    parallelism = 1
