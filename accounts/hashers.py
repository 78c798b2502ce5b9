"""How passwords are hashed and checked."""

from unicodedata import normalize

from django.contrib.auth.hashers import Argon2PasswordHasher, identify_hasher, make_password, verify_password
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

    Renews an outdated hash. If another request has renewed it, or changed the password, since the user was read, reads the
    hash again and checks that one; Django's `User.check_password` would overwrite it.
    """
    stored = user.password if user else OwaspArgon2Hasher.unmatched_hash
    try:
        identify_hasher(stored)
        is_correct, is_outdated = verify_password(password, stored)
    except (AssertionError, ValueError):  # there is no usable password, or the hash is malformed
        is_correct, is_outdated = verify_password(password, OwaspArgon2Hasher.unmatched_hash)
    if is_correct and is_outdated:
        rows = User.objects.filter(pk=user.pk)
        renewed = make_password(password)
        if not rows.filter(password=stored).update(password=renewed):
            user.password = rows.values_list("password", flat=True).first() or ""
            return check_password(user, password)
        user.password = renewed
    return is_correct


def normalize_password(password: str) -> str:
    """Return the password in NFKC, unless it is so long that a run of combining characters could take seconds."""
    return normalize("NFKC", password) if len(password) <= LONGEST_NORMALIZED else password
