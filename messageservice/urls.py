from django.urls import path

from messageservice import views

urlpatterns = [
    path("auth/user/delete", views.DeleteAccountView.as_view(), name="delete-account"),
    path("message", views.MailboxView.as_view(), name="messages"),
    path("message/sent", views.SentView.as_view(), name="messages-sent"),
    path("message/received", views.ReceivedView.as_view(), name="messages-received"),
    path("message/<int:pk>", views.MessageView.as_view(), name="message"),
    path("conversation", views.ConversationListView.as_view(), name="conversations"),
    path("conversation/<username:username>/read", views.ReadView.as_view(), name="conversation-read"),
]
