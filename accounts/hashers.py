"""How passwords are hashed and checked."""

from unicodedata import normalize

from django.contrib.auth.hashers import Argon2PasswordHasher, make_password, verify_password
from django.contrib.auth.models import User

LONGEST_PASSWORD = 1024  # characters


class OwaspArgon2Hasher(Argon2PasswordHasher):
    """Django's Argon2id with the parameters of OWASP's Password Storage Cheat Sheet, for passwords in Unicode form NFKC."""

    memory_cost = 19 * 1024  # KiB
    time_cost = 2
    parallelism = 1
    salt_entropy = 95  # bits: 16 random characters, as many as older hashes have, which need no renewal therefore
    # The hash of no password: checking it takes as long as checking a user's.
    no_password = f"argon2$argon2id$v=19$m={memory_cost},t={time_cost},p={parallelism}${'A' * 22}${'A' * 43}"

    def encode(self, password, salt):
        return super().encode(_in_nfkc(password), salt)

    def verify(self, password, encoded):
        """Try the form in NFKC and, where it differs, what was typed, as older hashes are of that.

        Always tries both, so that the time does not tell which was right.
        """
        normal = _in_nfkc(password)
        is_right = super().verify(normal, encoded)
        if normal != password:
            is_right |= super().verify(password, encoded)
        return is_right


def check_password(user: User | None, password: str) -> bool:
    """Whether the password is the user's; takes the same time where there is no user or no usable password.

    Renews an outdated hash, unless the password was changed since the user was read. Django's `User.check_password` would
    overwrite the new one.
    """
    stored = user.password if user and user.has_usable_password() else OwaspArgon2Hasher.no_password
    is_right, is_outdated = verify_password(password, stored)
    if is_right and is_outdated:
        user.password = make_password(password)
        User.objects.filter(pk=user.pk, password=stored).update(password=user.password)
    return is_right


def _in_nfkc(password: str) -> str:
    """Leaves a longer password as typed: normalizing takes the square of the time for a run of combining characters."""
    return normalize("NFKC", password) if len(password) <= LONGEST_PASSWORD else password
