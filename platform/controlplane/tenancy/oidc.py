"""Sign-in with OpenID Connect, one issuer by configuration. django-allauth runs the code flow; here it also sends a
nonce, checks every signature and claim, and decides whom an identity belongs to."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, Final

import jwt
import structlog
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter, get_adapter
from allauth.socialaccount.models import SocialAccount, SocialToken
from allauth.socialaccount.providers.base import AuthProcess
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from controlplane.common.errors import RemitError
from controlplane.tenancy import joining
from controlplane.tenancy.models import User
from controlplane.tenancy.second_factor import record_change
from controlplane.tenancy.sign_in_events import tell_tokens_ended

log = structlog.get_logger(__name__)

PROVIDER_ID: Final = "oidc"
# Signatures of keys the issuer publishes; never “none”, never a secret that both sides know.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
CLOCK_SKEW_SECONDS: Final = 30


class Adapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """The code flow with one issuer. Whatever is wrong with its answers becomes OAuth2Error: a page, never a crash."""

    state: dict[str, Any]

    @property
    def openid_config(self) -> dict[str, Any]:
        try:
            config: dict[str, Any] = super().openid_config
            issuer = config["issuer"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OAuth2Error("the discovery document can't be read") from error
        if issuer != self.get_provider().app.settings["issuer"]:
            raise OAuth2Error(f"the discovery document is of another issuer: {issuer}")
        return config

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:  # noqa: ARG002
        return f"{settings.CONFIG.public_url}{reverse('oidc-callback')}"

    def parse_token(self, data: dict[str, Any]) -> SocialToken:
        return SocialToken(token=str(data["access_token"]))

    def complete_login(self, request: HttpRequest, app: Any, token: SocialToken, **kwargs: Any) -> Any:
        try:
            claims = self._verified(app, kwargs["response"].get("id_token"))
            if "email" not in claims and "userinfo_endpoint" in self.openid_config:
                told = self._fetch_user_info(token.token)
                if told.get("sub") != claims["sub"]:
                    raise OAuth2Error("userinfo is about somebody else")
                claims = {**told, **claims}
            return self.get_provider().sociallogin_from_response(request, {"id_token": _used(claims)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OAuth2Error(f"the answer can't be read: {type(error).__name__}") from error

    def _verified(self, app: Any, id_token: object) -> dict[str, Any]:
        """The claims of a token that is signed by the issuer, for us, alive, and an answer to this very request."""
        if not isinstance(id_token, str):
            raise OAuth2Error("there is no id token")
        try:
            claims: dict[str, Any] = jwt.decode(
                id_token,
                self._key(jwt.get_unverified_header(id_token).get("kid")),
                algorithms=list(ALGORITHMS),
                audience=app.client_id,
                issuer=app.settings["issuer"],
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except jwt.PyJWTError as error:
            raise OAuth2Error(f"the id token is refused: {error}") from error
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != app.client_id:
            raise OAuth2Error("the id token was issued to another party")
        if not hmac.compare_digest(str(claims.get("nonce", "")), str(self.state.get("nonce") or secrets.token_hex())):
            raise OAuth2Error("the nonce is not ours")
        return claims

    def _key(self, kid: str | None) -> Any:
        with get_adapter().get_requests_session() as session:
            response = session.get(self.openid_config["jwks_uri"])
            response.raise_for_status()
            keys = jwt.PyJWKSet.from_dict(response.json()).keys
        found = [key for key in keys if kid is None or key.key_id == kid]
        if len(found) != 1:
            raise OAuth2Error("no published key signed the id token")
        return found[0]


class Provider(OpenIDConnectProvider):  # type: ignore[misc]
    oauth2_adapter_class = Adapter

    def get_login_url(self, request: HttpRequest, **kwargs: Any) -> str:  # noqa: ARG002
        return reverse("oidc-login")

    def get_callback_url(self) -> str:
        return reverse("oidc-callback")

    def get_redirect_from_request_kwargs(self, request: HttpRequest) -> dict[str, Any]:
        """Only where to go afterwards comes from the request: no scopes, parameters or processes of its choosing."""
        given = super().get_redirect_from_request_kwargs(request)
        return {"process": AuthProcess.LOGIN, **({"next_url": given["next_url"]} if "next_url" in given else {})}

    def redirect(self, request: HttpRequest, process: str, next_url: Any = None, **kwargs: Any) -> Any:
        nonce = secrets.token_urlsafe(24)
        kwargs |= {"auth_params": {"nonce": nonce}, "nonce": nonce}
        return super().redirect(request, process, next_url=next_url, **kwargs)

    def extract_uid(self, data: dict[str, Any]) -> str:
        """Subjects are the issuer's own: the same one of another issuer, configured later, is another person."""
        claims = data["id_token"]
        return hashlib.sha256(f"{claims['iss']}\0{claims['sub']}".encode()).hexdigest()

    def extract_email_addresses(self, data: dict[str, Any]) -> list[Any]:
        found: list[Any] = super().extract_email_addresses(data)
        for address in found:
            address.verified = data["id_token"].get("email_verified") is True  # nothing else is a yes
        return found


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Whose is this identity? Known: theirs. Verified address of an account: linked once. Invited, or of a domain that
    may join: a new account. Everybody else gets the same answer."""

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        if sociallogin.is_existing:
            return
        email = _verified_email(sociallogin)
        if email is None:
            raise ImmediateHttpResponse(_refused(request, unverified=True))
        user = User.objects.filter(email__iexact=email).first()
        if user is not None:
            self._link(request, sociallogin, user)

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        email = _verified_email(sociallogin)
        if email is None or not joining.may_join(email=email):
            raise ImmediateHttpResponse(_refused(request))
        return True

    def populate_user(self, request: HttpRequest, sociallogin: Any, data: dict[str, Any]) -> User:  # noqa: ARG002
        user: User = sociallogin.user
        email = str(data.get("email") or "").strip().lower()[:254]
        user.email = email
        user.name = " ".join(str(data.get("name") or email.partition("@")[0]).split())[:120]
        return user

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> User:  # noqa: ARG002
        user: User = sociallogin.user
        user.set_unusable_password()
        try:
            with transaction.atomic():
                sociallogin.save(request)
                joining.join_on_proof(user=user)
                record_change(user=user, event="person.linked")
        except (IntegrityError, RemitError) as error:  # two at once, or an invitation that died meanwhile
            raise ImmediateHttpResponse(_refused(request)) from error
        return user

    def on_authentication_error(self, *_: Any, **found: Any) -> None:
        exception = found.get("exception")
        log.warning("sign_in.oidc_failed", reason=str(exception or found.get("error") or "unknown")[:300])

    def _link(self, request: HttpRequest, sociallogin: Any, user: User) -> None:
        """An address that moved to another subject at the issuer does not take the account with it."""
        with transaction.atomic():
            User.objects.select_for_update(of=("self",)).get(pk=user.pk)
            if SocialAccount.objects.filter(user=user, provider=PROVIDER_ID).exists():
                log.warning("sign_in.oidc_other_subject", user=str(user.pk))
                raise ImmediateHttpResponse(_refused(request))
            self._shut_out_impostors(request, user)
            sociallogin.user = user
            sociallogin.save(request, connect=True)
            joining.join_on_proof(user=user)
            record_change(user=user, event="person.linked")

    def _shut_out_impostors(self, request: HttpRequest, user: User) -> None:
        """Whoever opened the account may only have known the address: its owner is here now, so the password and what
        was made with it end, unless a link mailed to the address was used before."""
        tokens_ended = joining.note_proof(user=user)
        if tokens_ended is None:
            return
        user.set_unusable_password()
        user.save(update_fields=["password"])
        tell_tokens_ended(request, tokens_ended)


class _CallbackView(OAuth2CallbackView):  # type: ignore[misc]
    def _get_state(self, request: HttpRequest, provider: Any) -> Any:
        state, response = super()._get_state(request, provider)
        self.adapter.state = state or {}
        return state, response


def is_on() -> bool:
    return bool(settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"])


def button() -> str:
    """What the sign-in button calls the issuer; empty where none is configured."""
    return str(settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"][0]["name"]) if is_on() else ""


@never_cache
@require_POST
def login(request: HttpRequest) -> HttpResponse:
    """POST, so that no other site's link starts it."""
    if not is_on():
        raise Http404
    try:
        provider = get_adapter(request).get_provider(request, PROVIDER_ID)
        response = provider.redirect_from_request(request)
    except (OAuth2Error, OSError) as error:  # requests' errors are OSErrors
        log.warning("sign_in.oidc_failed", reason=str(error)[:300])
        return render(request, "socialaccount/authentication_error.html", status=502)
    # Browsers hold `form-action 'self'` against redirects too; a page that goes on by itself is none.
    return render(request, "socialaccount/leaving.html", {"to": response["Location"]})


@never_cache
@require_GET
def callback(request: HttpRequest) -> HttpResponse:
    if not is_on():
        raise Http404
    return _CallbackView.adapter_view(Adapter(request, PROVIDER_ID))(request)  # type: ignore[no-any-return]


def _used(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims Remit goes by, which are all it keeps. Of a name it keeps what is text: nobody shall be locked out by
    what their directory calls them. Raises ValueError where the subject or the address is none: without its odd
    characters it would be somebody else's."""
    used = ("iss", "sub", "email", "email_verified", "name")
    kept = {name: claims[name] for name in used if claims.get(name) is not None}
    for name in ("sub", "email"):
        if not isinstance(kept.get(name, ""), str) or _text(kept.get(name, "")) != kept.get(name, ""):
            raise ValueError(f"{name} is no text")
    if "name" in kept:
        kept["name"] = _text(str(kept["name"]))
    return kept


def _text(value: str) -> str:
    """Without what PostgreSQL can't store: NUL, and halves of pairs."""
    return value.encode(errors="ignore").decode().replace("\0", "")


def _verified_email(sociallogin: Any) -> str | None:
    found = [address.email for address in sociallogin.email_addresses if address.verified]
    return str(found[0]).lower() if found and "\0" not in found[0] else None


def _refused(request: HttpRequest, *, unverified: bool = False) -> HttpResponse:
    return render(request, "socialaccount/refused.html", {"unverified": unverified}, status=403)
