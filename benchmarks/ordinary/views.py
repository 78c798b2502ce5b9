from django.contrib.auth.models import User
from django.db.models import Q
from django.http import JsonResponse
from django.urls import path
from django_filters.rest_framework import DateFilter, FilterSet, ModelChoiceFilter
from rest_framework import generics, serializers
from rest_framework.exceptions import PermissionDenied

from benchmarks.ordinary.models import Block, Message


class MessageSerializer(serializers.ModelSerializer):
    sender = serializers.SlugRelatedField(slug_field="username", read_only=True)
    receiver = serializers.SlugRelatedField(slug_field="username", queryset=User.objects.all())

    class Meta:
        model = Message
        fields = ["id", "sender", "receiver", "content", "created", "read"]
        read_only_fields = ["read"]


class SentFilter(FilterSet):
    receiver = ModelChoiceFilter(queryset=User.objects.all(), to_field_name="username")
    date = DateFilter(field_name="created", lookup_expr="date")

    class Meta:
        model = Message
        fields = ["receiver", "date"]


class MessageList(generics.ListCreateAPIView):
    serializer_class = MessageSerializer

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


urlpatterns = [
    path("readyz", lambda request: JsonResponse({})),
    path("api/message", MessageList.as_view()),
    path("api/message/sent", SentMessageList.as_view()),
]
