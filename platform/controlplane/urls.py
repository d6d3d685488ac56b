"""Every Django route. The machine ends that are not Django's are routed in `controlplane.asgi`."""

from django.urls import include, path

handler500 = "frontend.outages.server_error"
urlpatterns = [
    path("accounts/", include("allauth.account.urls")),
    path("", include("controlplane.common.probes")),
    path("", include("frontend.urls")),
]
