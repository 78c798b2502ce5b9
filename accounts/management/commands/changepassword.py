from getpass import getuser

from django.contrib.auth.management.commands import changepassword
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.management.base import CommandError

from accounts.actions import set_password
from accounts.models import user_named

ATTEMPTS = 3


class Command(changepassword.Command):
    """Asks like Django's command, but saves only the password: the account may change while the command asks."""

    def handle(self, *args, **options):
        username = options["username"] or getuser()
        user = user_named(username)
        if user is None:
            raise CommandError(f"There is no user {username}.")
        self.stdout.write(f"Changing password for user '{user}'")
        try:
            set_password(user, self.ask(user))
        except PermissionDenied as error:
            raise CommandError(str(error)) from None
        except EOFError:
            raise CommandError("The input ended before the password.") from None
        except UnicodeEncodeError:
            raise CommandError("The password is not UTF-8.") from None
        return f"Password changed successfully for user '{user}'"

    def ask(self, user: User) -> str:
        for _ in range(ATTEMPTS):
            password = self._get_pass()
            if password != self._get_pass("Password (again): "):
                self.stderr.write("Passwords do not match. Please try again.")
                continue
            try:
                validate_password(password, user)
            except ValidationError as error:
                self.stderr.write("\n".join(error.messages))
            else:
                return password
        raise CommandError(f"Aborting password change for user '{user}' after {ATTEMPTS} attempts")
