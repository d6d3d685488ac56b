"""Addresses of the pages. Names are what templates and redirects use."""

from django.urls import path

from frontend.views import sign_in

urlpatterns = [
    path("sign-in/<str:secret>", sign_in.with_link, name="sign-in-link"),
]
