from concurrent.futures import ThreadPoolExecutor

from django.contrib.auth.hashers import Argon2PasswordHasher

# The allocator keeps the memory of a hash for the thread that made it: in few threads, a worker process keeps it small.
_hashing = ThreadPoolExecutor(max_workers=2, thread_name_prefix="hashing")


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
