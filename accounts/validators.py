"""Django's password validators, for the form of a password that is hashed: full-width letters make no password stronger."""

from django.contrib.auth import password_validation

from accounts.hashers import normalize_password


class NormalizedMixin:
    def validate(self, password, user=None):
        super().validate(normalize_password(password), user)


class UserAttributeSimilarityValidator(NormalizedMixin, password_validation.UserAttributeSimilarityValidator):
    pass


class CommonPasswordValidator(NormalizedMixin, password_validation.CommonPasswordValidator):
    pass


class NumericPasswordValidator(NormalizedMixin, password_validation.NumericPasswordValidator):
    pass
