"""Every Django route. The machine ends that are not Django's are routed in `controlplane.asgi`."""

from django.urls import include, path

urlpatterns = [
    path("accounts/", include("allauth.account.urls")),
    path("", include("controlplane.common.probes")),
    path("", include("frontend.urls")),
]
