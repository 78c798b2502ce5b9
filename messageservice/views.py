import re

from django.http import Http404
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.generics import ListAPIView
from rest_framework.response import Response

from accounts.serializers import CurrentPasswordSerializer
from config.api.schema import error_responses
from config.api.views import BaseView
from messageservice.actions import delete_account, mark_read, reject_used_key, send_message
from messageservice.filters import ConversationFilter, ListingFilterBackend, MailboxFilter, ReceivedFilter, SentFilter
from messageservice.listings import ConversationListing, MessageListing
from messageservice.models import Conversation
from messageservice.pagination import PageOrBeforePagination, PageOrCursorPagination
from messageservice.serializers import ConversationSerializer, MessageSerializer, ReadSerializer, SendSerializer

CATCH_UP = "To get each new message once, ask for `after=<largest id seen>` and follow `next`."
UNKNOWN_RECEIVER = {"receiver": ["does_not_exist"]}  # the codes of a serializer's errors, by field


def idempotency_key(request):
    """Return the header Idempotency-Key, or None. Raises ValidationError if it is malformed."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch("[!-~]{1,255}", key):
        raise ValidationError({"idempotency_key": ["Must be 1 to 255 visible ASCII characters."]})
    return key


class MessageListView(BaseView, ListAPIView):
    serializer_class = MessageSerializer
    filter_backends = [ListingFilterBackend]
    pagination_class = PageOrCursorPagination


@extend_schema_view(
    get=extend_schema(
        operation_id="list_messages",
        summary="List all messages, sent and received",
        description=f"Returns the messages that you sent or received, newest first. {CATCH_UP}",
    ),
    post=extend_schema(
        operation_id="send_message",
        summary="Send a message",
        description="Stores a message for its receiver. If the receiver blocks you, the response is a 403 and nothing is "
        "stored. To retry safely, send an `Idempotency-Key`.",
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                {"type": "string", "pattern": "^[!-~]{1,255}$"},
                OpenApiParameter.HEADER,
                description="Makes retries safe: one message is stored per key, and every retry returns it",
            ),
            OpenApiParameter(
                "Location",
                {"type": "string", "format": "uri"},
                OpenApiParameter.HEADER,
                response=[201],
                description="The full URL of the message",
            ),
            OpenApiParameter(
                "Idempotency-Replayed",
                {"type": "string", "enum": ["true"]},
                OpenApiParameter.HEADER,
                response=[201],
                description="Present if the message was already stored under this key",
            ),
        ],
        request=SendSerializer,
        responses={201: MessageSerializer, **error_responses(403, 422, 429)},
    ),
)
class MailboxView(MessageListView):
    filterset_class = MailboxFilter

    def get_queryset(self):
        return MessageListing.involving(self.request.user)

    def post(self, request):
        serializer = SendSerializer(data=request.data)
        if not serializer.is_valid():
            if {name: [error.code for error in errors] for name, errors in serializer.errors.items()} == UNKNOWN_RECEIVER:
                reject_used_key(request.user, idempotency_key(request))
            raise ValidationError(serializer.errors)
        message, replayed = send_message(
            sender=request.user, idempotency_key=idempotency_key(request), **serializer.validated_data
        )
        headers = {"Location": request.build_absolute_uri(reverse("message", args=[message.id]))}
        if replayed:
            headers["Idempotency-Replayed"] = "true"
        return Response(MessageSerializer(message).data, status=status.HTTP_201_CREATED, headers=headers)


@extend_schema_view(
    get=extend_schema(
        operation_id="list_sent_messages",
        summary="List sent messages",
        description=f"Returns the messages that you sent, newest first. {CATCH_UP}",
    )
)
class SentView(MessageListView):
    filterset_class = SentFilter

    def get_queryset(self):
        return MessageListing.sent_by(self.request.user)


@extend_schema_view(
    get=extend_schema(
        operation_id="list_received_messages",
        summary="List received messages",
        description=f"Returns the messages that you received, newest first. {CATCH_UP}",
    )
)
class ReceivedView(MessageListView):
    filterset_class = ReceivedFilter

    def get_queryset(self):
        return MessageListing.received_by(self.request.user)


class MessageView(BaseView):
    @extend_schema(
        operation_id="show_message",
        summary="Show a message",
        description="Returns a message that you sent or received.",
        parameters=[OpenApiParameter("id", OpenApiTypes.INT64, OpenApiParameter.PATH, description="The id of the message")],
        responses={200: MessageSerializer, **error_responses(404)},
    )
    def get(self, request, pk):
        message = MessageListing.involving(request.user).with_id(pk)
        if message is None:
            raise Http404
        return Response(MessageSerializer(message).data)


@extend_schema_view(
    get=extend_schema(
        operation_id="list_conversations",
        summary="List conversations",
        description="Returns a row for each user with whom you exchanged messages, latest message first.",
    )
)
class ConversationListView(BaseView, ListAPIView):
    serializer_class = ConversationSerializer
    filter_backends = [ListingFilterBackend]
    pagination_class = PageOrBeforePagination
    filterset_class = ConversationFilter

    def get_queryset(self):
        return ConversationListing(user=self.request.user)


class ReadView(BaseView):
    serializer_class = ReadSerializer
    lookup_field = "partner__username__any_case"
    lookup_url_kwarg = "username"

    def get_queryset(self):
        return Conversation.objects.filter(owner=self.request.user).select_related("owner", "partner")

    @extend_schema(
        operation_id="mark_conversation_read",
        summary="Mark a conversation as read up to a message",
        description="Marks the messages that this user sent you as read, up to and including the message `up_to`. Both of "
        "you see the time in `read`. You can repeat the request, but not undo it.",
        parameters=[OpenApiParameter("username", str, OpenApiParameter.PATH, description="The username of the other user")],
        responses={200: ReadSerializer, **error_responses(404)},
    )
    def post(self, request, username):
        conversation = self.get_object()
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(self.get_serializer(mark_read(conversation=conversation, **serializer.validated_data)).data)


class DeleteAccountView(BaseView):
    """Part of this app because deleting an account locks the user's mailbox."""

    @extend_schema(
        operation_id="delete_account",
        summary="Delete your account",
        description="Deletes your account for good, and frees its name. Messages that you exchanged stay in the lists of "
        "the other users, under a name that begins with `deleted-`.",
        tags=["accounts"],
        request=CurrentPasswordSerializer,
        responses={204: None, **error_responses(429)},
    )
    def post(self, request):
        serializer = CurrentPasswordSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        delete_account(user=request.user, **serializer.validated_data)
        return Response(status=status.HTTP_204_NO_CONTENT)
