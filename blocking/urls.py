from django.urls import path

from blocking import views

urlpatterns = [path("block", views.BlockView.as_view(), name="block")]
