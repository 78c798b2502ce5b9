from django.contrib.auth.models import User
from django_filters import rest_framework as filters

from benchmarks.ordinary.models import Message


class MessageFilter(filters.FilterSet):
    after = filters.NumberFilter(field_name="id", lookup_expr="gt")

    class Meta:
        model = Message
        fields = ["after"]


class SentFilter(filters.FilterSet):
    receiver = filters.ModelChoiceFilter(queryset=User.objects.all(), to_field_name="username")
    date = filters.DateFilter(field_name="created", lookup_expr="date")

    class Meta:
        model = Message
        fields = ["receiver", "date"]


class ReceivedFilter(filters.FilterSet):
    sender = filters.ModelChoiceFilter(queryset=User.objects.all(), to_field_name="username")
    date = filters.DateFilter(field_name="created", lookup_expr="date")

    class Meta:
        model = Message
        fields = ["sender", "date"]
