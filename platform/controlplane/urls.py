"""Every Django route. The machine ends that are not Django's are routed in `controlplane.asgi`."""

from allauth.mfa.base import views as mfa
from django.urls import include, path
from django.views.generic import RedirectView

from controlplane.tenancy import oidc

handler500 = "frontend.outages.server_error"
urlpatterns = [
    # Addresses are the operator's and the inviter's to give, not the person's to change.
    path("accounts/email/", RedirectView.as_view(pattern_name="me"), name="account_email"),
    path("accounts/confirm-email/", RedirectView.as_view(pattern_name="me"), name="account_email_verification_sent"),
    path("accounts/social/", RedirectView.as_view(pattern_name="me"), name="socialaccount_connections"),
    path("accounts/", include("allauth.account.urls")),
    path("accounts/second-factor/", mfa.authenticate, name="mfa_authenticate"),
    path("accounts/second-factor/again/", mfa.reauthenticate, name="mfa_reauthenticate"),
    path("accounts/oidc/", oidc.login, name="oidc-login"),
    path("accounts/oidc/callback/", oidc.callback, name="oidc-callback"),
    path("accounts/social/", include("allauth.socialaccount.urls")),
    path("", include("controlplane.common.probes")),
    path("", include("frontend.api.urls")),
    path("", include("frontend.urls")),
]
