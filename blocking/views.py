from rest_framework.generics import DestroyAPIView, ListCreateAPIView

from blocking.actions import block_user, unblock_user
from blocking.models import Block
from blocking.serializers import BlockSerializer
from config.pagination import PagePagination
from config.parameters import StrictParametersMixin


class BlockListView(StrictParametersMixin, ListCreateAPIView):
    serializer_class = BlockSerializer
    pagination_class = PagePagination

    def get_queryset(self):
        return Block.objects.of(self.request.user).select_related("blocked").newest_first()

    def perform_create(self, serializer):
        serializer.instance = block_user(blocker=self.request.user, **serializer.validated_data)


class BlockView(StrictParametersMixin, DestroyAPIView):
    lookup_field = "blocked__username"
    lookup_url_kwarg = "username"

    def get_queryset(self):
        return Block.objects.of(self.request.user).select_related("blocker", "blocked")

    def perform_destroy(self, instance):
        unblock_user(instance)
