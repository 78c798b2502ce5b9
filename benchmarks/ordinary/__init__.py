"""The same service as the documentation of Django REST framework has one write it: what the benchmarks compare with."""
