from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.generics import DestroyAPIView, ListCreateAPIView

from blocking.actions import block_user, unblock_user
from blocking.models import Block
from blocking.serializers import BlockSerializer
from config.api.pagination import PagePagination
from config.api.schema import error_responses
from config.api.views import BaseView


@extend_schema_view(
    get=extend_schema(
        operation_id="list_blocks",
        summary="List blocked users",
        description="Returns the users that you block, latest block first.",
    ),
    post=extend_schema(
        operation_id="block_user",
        summary="Block a user",
        description="From now on, messages of this user to you are rejected. You can still send messages to them, and "
        "earlier messages stay in your lists.",
    ),
)
class BlockListView(BaseView, ListCreateAPIView):
    serializer_class = BlockSerializer
    pagination_class = PagePagination

    def get_queryset(self):
        return Block.objects.created_by(self.request.user).newest_first().select_related("blocked")

    def perform_create(self, serializer):
        serializer.instance = block_user(blocker=self.request.user, **serializer.validated_data)


@extend_schema_view(
    delete=extend_schema(
        operation_id="unblock_user",
        summary="Unblock a user",
        description="Removes your block of this user, who can send you messages again.",
        parameters=[
            OpenApiParameter("username", str, OpenApiParameter.PATH, description="The username of the blocked user")
        ],
        responses={204: None, **error_responses(404)},
    )
)
class BlockView(BaseView, DestroyAPIView):
    lookup_field = "blocked__username__any_case"
    lookup_url_kwarg = "username"

    def get_queryset(self):
        return Block.objects.created_by(self.request.user).select_related("blocker", "blocked")

    def perform_destroy(self, instance):
        unblock_user(instance)
