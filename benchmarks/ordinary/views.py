from django.contrib.auth import login
from django.db.models import Case, Count, F, Max, Q, When
from knox.views import LoginView as KnoxLoginView
from rest_framework import generics, permissions
from rest_framework.authtoken.serializers import AuthTokenSerializer
from rest_framework.exceptions import PermissionDenied

from benchmarks.ordinary.filters import MessageFilter, ReceivedFilter, SentFilter
from benchmarks.ordinary.models import Block, Message
from benchmarks.ordinary.serializers import ConversationSerializer, MessageSerializer


class LoginView(KnoxLoginView):
    permission_classes = [permissions.AllowAny]

    def post(self, request, format=None):  # noqa: A002 - knox's name
        serializer = AuthTokenSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        login(request, serializer.validated_data["user"])
        return super().post(request, format=None)


class MessageList(generics.ListCreateAPIView):
    serializer_class = MessageSerializer
    filterset_class = MessageFilter

    def get_queryset(self):
        user = self.request.user
        return Message.objects.filter(Q(sender=user) | Q(receiver=user)).select_related("sender", "receiver")

    def perform_create(self, serializer):
        sender, receiver = self.request.user, serializer.validated_data["receiver"]
        if Block.objects.filter(blocker=receiver, blocked=sender).exists():
            raise PermissionDenied("This user does not receive messages from you.")
        serializer.save(sender=sender)


class SentMessageList(generics.ListAPIView):
    serializer_class = MessageSerializer
    filterset_class = SentFilter

    def get_queryset(self):
        return Message.objects.filter(sender=self.request.user).select_related("sender", "receiver")


class ReceivedMessageList(generics.ListAPIView):
    serializer_class = MessageSerializer
    filterset_class = ReceivedFilter

    def get_queryset(self):
        return Message.objects.filter(receiver=self.request.user).select_related("sender", "receiver")


class ConversationList(generics.ListAPIView):
    serializer_class = ConversationSerializer

    def get_queryset(self):
        user = self.request.user
        return (
            Message.objects.filter(Q(sender=user) | Q(receiver=user))
            .values(partner=Case(When(sender=user, then=F("receiver_id")), default=F("sender_id")))
            .annotate(latest=Max("id"), unread=Count("id", filter=Q(receiver=user, read=None) & ~Q(sender=user)))
            .order_by("-latest")
        )

    def paginate_queryset(self, queryset):
        rows = super().paginate_queryset(queryset)
        messages = Message.objects.select_related("sender", "receiver").in_bulk([row["latest"] for row in rows])
        return [self.conversation(messages[row["latest"]], row["unread"]) for row in rows]

    def conversation(self, message, unread):
        partner = message.receiver if message.sender == self.request.user else message.sender
        return {"user": partner.username, "last_message": message, "unread": unread}
