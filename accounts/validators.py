"""Django's password validators, applied to the password in NFKC, which is what is hashed: full-width letters do not help."""

from django.contrib.auth import password_validation

from accounts.hashers import normalize_password


class NormalizePasswordMixin:
    def validate(self, password, user=None):
        super().validate(normalize_password(password), user)


class UserAttributeSimilarityValidator(NormalizePasswordMixin, password_validation.UserAttributeSimilarityValidator):
    pass


class CommonPasswordValidator(NormalizePasswordMixin, password_validation.CommonPasswordValidator):
    pass


class NumericPasswordValidator(NormalizePasswordMixin, password_validation.NumericPasswordValidator):
    pass
