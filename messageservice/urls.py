from django.urls import path

from messageservice import views

urlpatterns = [
    path("message", views.MailboxView.as_view(), name="message-list"),
    path("message/sent", views.SentView.as_view(), name="message-sent"),
    path("message/received", views.ReceivedView.as_view(), name="message-received"),
]
