from rest_framework.generics import ListAPIView, ListCreateAPIView

from config.parameters import StrictParametersMixin
from messageservice.actions import send_message
from messageservice.filters import ReceivedFilter, SentFilter
from messageservice.models import Message
from messageservice.pagination import MailboxPagination
from messageservice.serializers import MessageSerializer

shown = Message.objects.select_related("sender", "receiver").newest_first()


class MailboxView(StrictParametersMixin, ListCreateAPIView):
    serializer_class = MessageSerializer
    pagination_class = MailboxPagination
    counter = "total"

    def get_queryset(self):
        return shown.involving(self.request.user)

    def perform_create(self, serializer):
        serializer.instance = send_message(sender=self.request.user, **serializer.validated_data)


class SentView(StrictParametersMixin, ListAPIView):
    serializer_class = MessageSerializer
    pagination_class = MailboxPagination
    filterset_class = SentFilter
    counter = "sent"

    def get_queryset(self):
        return shown.sent_by(self.request.user)


class ReceivedView(StrictParametersMixin, ListAPIView):
    serializer_class = MessageSerializer
    pagination_class = MailboxPagination
    filterset_class = ReceivedFilter
    counter = "received"

    def get_queryset(self):
        return shown.received_by(self.request.user)
