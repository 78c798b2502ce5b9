"""How passwords are hashed and checked."""

from unicodedata import normalize

from django.contrib.auth.hashers import Argon2PasswordHasher, make_password, verify_password
from django.contrib.auth.models import User

LONGEST_PASSWORD = 1024  # characters as typed when it was set
LONGEST_NORMALIZED = 4 * LONGEST_PASSWORD  # a password of LONGEST_PASSWORD characters has at most as many in NFD


class OwaspArgon2Hasher(Argon2PasswordHasher):
    """Django's Argon2id with the parameters of OWASP's Password Storage Cheat Sheet, for passwords in Unicode form NFKC."""

    memory_cost = 19 * 1024  # KiB
    time_cost = 2
    parallelism = 1
    salt_entropy = 95  # bits: 16 random characters, as in older hashes, which therefore need no renewal
    # Matches no password. Checking it takes as long as checking a user's hash.
    unmatched_hash = f"argon2$argon2id$v=19$m={memory_cost},t={time_cost},p={parallelism}${'A' * 22}${'A' * 43}"

    def encode(self, password, salt):
        return super().encode(normalize_password(password), salt)

    def verify(self, password, encoded):
        """Try the password in NFKC and, if that differs, as typed: older hashes were made from the password as typed.

        If they differ, both are always tried, so that the time does not tell which one matched.
        """
        normalized = normalize_password(password)
        is_correct = super().verify(normalized, encoded)
        if normalized != password:
            is_correct |= super().verify(password, encoded)
        return is_correct


def check_password(user: User | None, password: str) -> bool:
    """Return whether the password is the user's, after the same time even if there is no user or no usable password.

    Renews an outdated hash, unless the password was changed since the user was read. Django's `User.check_password` would
    overwrite the new password.
    """
    stored = user.password if user and user.has_usable_password() else OwaspArgon2Hasher.unmatched_hash
    is_correct, is_outdated = verify_password(password, stored)
    if is_correct and is_outdated:
        user.password = make_password(password)
        User.objects.filter(pk=user.pk, password=stored).update(password=user.password)
    return is_correct


def normalize_password(password: str) -> str:
    """Return the password in NFKC, unless it is so long that a run of combining characters could take seconds."""
    return normalize("NFKC", password) if len(password) <= LONGEST_NORMALIZED else password
