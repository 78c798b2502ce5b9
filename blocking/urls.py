from django.urls import path

from blocking import views

urlpatterns = [
    path("block", views.BlockListView.as_view(), name="blocks"),
    path("block/<username:username>", views.BlockView.as_view(), name="block"),
]
