from config.pagination import PagePagination
from messageservice.models import Mailbox


class MailboxPagination(PagePagination):
    """Pages of a list in the user's mailbox, which knows how many messages are in it.

    The view says in `counter` which of the mailbox's counts is that of its whole list.
    """

    def paginate_queryset(self, queryset, request, view=None):
        self.mailbox = None
        if request.query_params.keys() <= set(self.parameters):
            self.mailbox = Mailbox.objects.of(request.user)
            self.counter = view.counter
        return super().paginate_queryset(queryset, request, view)

    def get_count(self, queryset):
        return getattr(self.mailbox, self.counter) if self.mailbox else super().get_count(queryset)

    def get_rows(self, queryset, start, stop):
        if self.mailbox and self.counter == "total":
            return queryset.in_places(self.mailbox.user, self.count - stop + 1, self.count - start)
        return super().get_rows(queryset, start, stop)
