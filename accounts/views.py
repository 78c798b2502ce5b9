from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import serializers
from accounts.actions import change_password, log_in, log_out_everywhere, register
from config.parameters import StrictParametersMixin
from config.views import OpenView


class RegisterView(StrictParametersMixin, OpenView):
    def post(self, request):
        serializer = serializers.RegisterSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        session = register(**serializer.validated_data)
        return Response(serializers.SessionSerializer(session).data, status=status.HTTP_201_CREATED)


class LoginView(StrictParametersMixin, OpenView):
    def post(self, request):
        serializer = serializers.LoginSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        session = log_in(**serializer.validated_data)
        return Response(serializers.SessionSerializer(session).data)


class LogoutView(StrictParametersMixin, APIView):
    def post(self, request):
        request.auth.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


class LogoutAllView(StrictParametersMixin, APIView):
    def post(self, request):
        log_out_everywhere(request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


class UserView(StrictParametersMixin, APIView):
    def get(self, request):
        return Response(serializers.UserSerializer(request.user).data)


class PasswordView(StrictParametersMixin, APIView):
    def post(self, request):
        serializer = serializers.PasswordSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        change_password(user=request.user, token=request.auth, **serializer.validated_data)
        return Response(status=status.HTTP_204_NO_CONTENT)
