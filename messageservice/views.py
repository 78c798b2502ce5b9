import re

from django.urls import reverse
from rest_framework.exceptions import ValidationError
from rest_framework.generics import GenericAPIView, ListAPIView, ListCreateAPIView, RetrieveAPIView
from rest_framework.response import Response

from config.pagination import PageOrCursorPagination, PagePagination
from config.parameters import StrictParametersMixin
from messageservice.actions import mark_read, send_message
from messageservice.filters import ConversationFilter, MailboxFilter, ReceivedFilter, SentFilter
from messageservice.models import Conversation, Message
from messageservice.serializers import ConversationSerializer, MessageSerializer, ReadSerializer

shown = Message.objects.select_related("sender", "receiver")


def idempotency_key(request):
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch("[!-~]{1,255}", key):
        raise ValidationError({"idempotency_key": ["Must be 1 to 255 visible ASCII characters."]})
    return key


class MailboxView(StrictParametersMixin, ListCreateAPIView):
    serializer_class = MessageSerializer
    pagination_class = PageOrCursorPagination
    filterset_class = MailboxFilter

    def get_queryset(self):
        return shown.involving(self.request.user)

    def perform_create(self, serializer):
        serializer.instance, self.replayed = send_message(
            sender=self.request.user, idempotency_key=idempotency_key(self.request), **serializer.validated_data
        )

    def get_success_headers(self, data):
        location = self.request.build_absolute_uri(reverse("message", args=[data["id"]]))
        return {"Location": location, **({"Idempotency-Replayed": "true"} if self.replayed else {})}


class SentView(StrictParametersMixin, ListAPIView):
    serializer_class = MessageSerializer
    pagination_class = PageOrCursorPagination
    filterset_class = SentFilter

    def get_queryset(self):
        return shown.sent_by(self.request.user)


class ReceivedView(StrictParametersMixin, ListAPIView):
    serializer_class = MessageSerializer
    pagination_class = PageOrCursorPagination
    filterset_class = ReceivedFilter

    def get_queryset(self):
        return shown.received_by(self.request.user)


class MessageView(StrictParametersMixin, RetrieveAPIView):
    serializer_class = MessageSerializer

    def get_queryset(self):
        return shown.involving(self.request.user)


class ConversationListView(StrictParametersMixin, ListAPIView):
    serializer_class = ConversationSerializer
    pagination_class = PagePagination
    filterset_class = ConversationFilter

    def get_queryset(self):
        partners_and_messages = Conversation.objects.select_related(
            "partner", "last_message__sender", "last_message__receiver"
        )
        return partners_and_messages.of(self.request.user).latest_first()


class ReadView(StrictParametersMixin, GenericAPIView):
    serializer_class = ReadSerializer
    lookup_field = "partner__username"
    lookup_url_kwarg = "username"

    def get_queryset(self):
        return Conversation.objects.of(self.request.user).select_related("owner", "partner")

    def post(self, request, username):
        conversation = self.get_object()
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(self.get_serializer(mark_read(conversation=conversation, **serializer.validated_data)).data)
