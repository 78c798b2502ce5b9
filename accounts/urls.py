from django.urls import path

from accounts import views

urlpatterns = [
    path("auth/register", views.RegisterView.as_view(), name="register"),
    path("auth/login", views.LoginView.as_view(), name="login"),
    path("auth/logout", views.LogoutView.as_view(), name="logout"),
    path("auth/logoutall", views.LogoutAllView.as_view(), name="logout-all"),
    path("auth/session", views.SessionListView.as_view(), name="sessions"),
    path("auth/session/<str:session_id>", views.SessionView.as_view(), name="session"),
    path("auth/user", views.UserView.as_view(), name="user"),
    path("auth/password", views.PasswordView.as_view(), name="password"),
]
