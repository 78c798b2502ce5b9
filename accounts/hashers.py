from concurrent.futures import ThreadPoolExecutor

from django.contrib.auth.hashers import Argon2PasswordHasher

# One at a time in each process: more than there are cores would take the cache from each other, and a log-in cost an eighth
# more. In a thread of their own: the allocator keeps a hash's 19 MiB for each thread that has made one.
_hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hashing")


class OwaspArgon2Hasher(Argon2PasswordHasher):
    """Argon2id with the parameters of OWASP's Password Storage Cheat Sheet.

    Django's own parameters cost a log-in ten times as much.
    """

    memory_cost = 19 * 1024  # KiB
    time_cost = 2
    parallelism = 1

    def encode(self, password, salt):
        return _hashing.submit(super().encode, password, salt).result()

    def verify(self, password, encoded):
        return _hashing.submit(super().verify, password, encoded).result()
