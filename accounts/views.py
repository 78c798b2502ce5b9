from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.response import Response

from accounts import serializers
from accounts.actions import change_password, log_in, log_out_everywhere, register
from config.api.schema import error_responses
from config.api.views import BaseView, OpenView


class RegisterView(OpenView):
    @extend_schema(
        operation_id="register",
        summary="Create an account",
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
        request=serializers.LoginSerializer,
        responses={200: serializers.SessionSerializer, **error_responses(429)},
    )
    def post(self, request):
        serializer = serializers.LoginSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        session = log_in(**serializer.validated_data)
        return Response(serializers.SessionSerializer(session).data)


class LogoutView(BaseView):
    @extend_schema(operation_id="log_out", summary="Log out", request=None, responses={204: None})
    def post(self, request):
        request.auth.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


class LogoutAllView(BaseView):
    @extend_schema(operation_id="log_out_everywhere", summary="Log out everywhere", request=None, responses={204: None})
    def post(self, request):
        log_out_everywhere(request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


class UserView(BaseView):
    @extend_schema(operation_id="show_account", summary="Show your account", responses=serializers.UserSerializer)
    def get(self, request):
        return Response(serializers.UserSerializer(request.user).data)


class PasswordView(BaseView):
    @extend_schema(
        operation_id="change_password",
        summary="Change your password",
        request=serializers.PasswordSerializer,
        responses={204: None, **error_responses(429)},
    )
    def post(self, request):
        serializer = serializers.PasswordSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        change_password(user=request.user, token=request.auth, **serializer.validated_data)
        return Response(status=status.HTTP_204_NO_CONTENT)
