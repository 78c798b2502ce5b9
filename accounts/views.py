from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.response import Response

from accounts import serializers
from accounts.actions import change_password, end_session, log_in, log_out_everywhere, register
from accounts.authentication import live_tokens
from config.api.pagination import PagePagination
from config.api.schema import error_responses
from config.api.views import BaseView, OpenView


class RegisterView(OpenView):
    @extend_schema(
        operation_id="register",
        summary="Create an account",
        description="Creates a user and returns a token. Send the token with every other request, until it expires.",
        request=serializers.RegisterSerializer,
        responses={201: serializers.SessionSerializer, **error_responses(429)},
    )
    def post(self, request):
        serializer = serializers.RegisterSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        session = register(**serializer.validated_data)
        return Response(serializers.SessionSerializer(session).data, status=status.HTTP_201_CREATED)


class LoginView(OpenView):
    @extend_schema(
        operation_id="log_in",
        summary="Log in",
        description="Returns a new token. Other tokens of the user stay valid.",
        request=serializers.LoginSerializer,
        responses={200: serializers.SessionSerializer, **error_responses(429)},
    )
    def post(self, request):
        serializer = serializers.LoginSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        session = log_in(**serializer.validated_data)
        return Response(serializers.SessionSerializer(session).data)


class LogoutView(BaseView):
    @extend_schema(
        operation_id="log_out",
        summary="Log out",
        description="Revokes the token that sends the request. Other tokens of the user stay valid.",
        request=None,
        responses={204: None},
    )
    def post(self, request):
        request.auth.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


class LogoutAllView(BaseView):
    @extend_schema(
        operation_id="log_out_everywhere",
        summary="Log out everywhere",
        description="Revokes all tokens of the user, also the one that sends the request.",
        request=None,
        responses={204: None},
    )
    def post(self, request):
        log_out_everywhere(request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


@extend_schema_view(
    get=extend_schema(
        operation_id="list_sessions",
        summary="List your sessions",
        description="Returns your tokens that have not expired, newest first. Each register or login creates a session.",
    )
)
class SessionListView(BaseView, ListAPIView):
    serializer_class = serializers.LiveSessionSerializer
    pagination_class = PagePagination

    def get_queryset(self):
        return live_tokens(self.request.user)


class SessionView(BaseView):
    @extend_schema(
        operation_id="end_session",
        summary="End a session",
        description="Revokes the token of one of your sessions. You can end the session that sends the request, too.",
        parameters=[
            OpenApiParameter("session_id", str, OpenApiParameter.PATH, description="The id of a session in your list")
        ],
        responses={204: None, **error_responses(404)},
    )
    def delete(self, request, session_id):
        end_session(request.user, session_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class UserView(BaseView):
    @extend_schema(
        operation_id="show_account",
        summary="Show your account",
        description="Returns your username and email address.",
        responses=serializers.UserSerializer,
    )
    def get(self, request):
        return Response(serializers.UserSerializer(request.user).data)


class PasswordView(BaseView):
    @extend_schema(
        operation_id="change_password",
        summary="Change your password",
        description="Sets a new password and revokes all your other tokens. The token that sends the request stays valid.",
        request=serializers.PasswordSerializer,
        responses={204: None, **error_responses(429)},
    )
    def post(self, request):
        serializer = serializers.PasswordSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        change_password(user=request.user, token=request.auth, **serializer.validated_data)
        return Response(status=status.HTTP_204_NO_CONTENT)
