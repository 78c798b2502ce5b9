from django.urls import path

from benchmarks.ordinary import views

urlpatterns = [
    path("api/auth/login", views.LoginView.as_view()),
    path("api/message", views.MessageList.as_view()),
    path("api/message/sent", views.SentMessageList.as_view()),
    path("api/message/received", views.ReceivedMessageList.as_view()),
    path("api/conversation", views.ConversationList.as_view()),
]
