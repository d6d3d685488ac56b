"""A small OpenID provider as a process of its own: discovery, keys, code flow with PKCE and nonce, userinfo.

Started with `python openid_provider.py`; prints its issuer. It signs in whoever `POST /person` last described, strictly
by the specification, except for the faults that description asks for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "remit", "a-secret-of-the-client"


class Provider:
    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.person: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.access: dict[str, dict[str, Any]] = {}
        self.asked: list[dict[str, str]] = []

    def discovery(self) -> dict[str, Any]:
        issuer = self.person.get("discovery_issuer", self.issuer)
        return {
            "issuer": issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }

    def keys(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": "first", "use": "sig", "alg": "RS256"}]}

    def authorize(self, query: dict[str, str]) -> tuple[int, str]:
        """The address to send the browser back to; people are asked nothing here."""
        self.asked.append(query)
        needed = ("redirect_uri", "scope", "state", "nonce", "code_challenge")
        if query.get("client_id") != CLIENT_ID or any(not query.get(name) for name in needed):
            return 400, "invalid_request"
        asked = query.get("response_type"), query.get("code_challenge_method")
        if asked != ("code", "S256") or "openid" not in query["scope"].split():
            return 400, "invalid_request"
        if self.person.get("cancels"):
            return 302, f"{query['redirect_uri']}?{urlencode({'error': 'access_denied', 'state': query['state']})}"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return 302, f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        given = (form.get("client_id"), form.get("client_secret"))
        if authorization.startswith("Basic "):
            given = tuple(base64.b64decode(authorization[6:]).decode().split(":", 1))  # type: ignore[assignment]
        if given != (CLIENT_ID, CLIENT_SECRET):
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
            return 400, {"error": "invalid_grant"}
        if challenge.decode().rstrip("=") != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        access = secrets.token_urlsafe(16)
        claims = {**self.person.get("claims", {}), "sub": self.person.get("sub", "nobody")}
        self.access[access] = {**claims, **self.person.get("userinfo", {})}
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
        if not self.person.get("no_id_token"):
            answer["id_token"] = self.id_token(claims, asked["nonce"])
        return 200, answer

    def id_token(self, claims: dict[str, Any], nonce: str) -> str:
        moment = int(time.time())
        body = {"iss": self.issuer, "aud": CLIENT_ID, "iat": moment, "exp": moment + 300, "nonce": nonce, **claims}
        if self.person.get("email_only_in_userinfo"):
            body = {name: value for name, value in body.items() if not name.startswith("email")}
        body |= self.person.get("id_token", {})
        body = {name: value for name, value in body.items() if value is not None}
        match self.person.get("signs_with", "first"):
            case "none":
                return jwt.encode(body, None, algorithm="none", headers={"kid": "first"})
            case "other":
                return jwt.encode(body, self.other_key, algorithm="RS256", headers={"kid": "first"})
            case "secret":
                return jwt.encode(body, CLIENT_SECRET * 2, algorithm="HS256", headers={"kid": "first"})
            case kid:
                return jwt.encode(body, self.key, algorithm="RS256", headers={"kid": kid})


class Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        match parts.path:
            case "/.well-known/openid-configuration":
                self.answer(200, self.provider.discovery())
            case "/keys":
                self.answer(200, self.provider.keys())
            case "/authorize":
                status, where = self.provider.authorize({k: v[0] for k, v in parse_qs(parts.query).items()})
                self.answer(status, {"error": where} if status != 302 else {}, location=where if status == 302 else "")
            case "/userinfo":
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                found = self.provider.access.get(token)
                self.answer(200 if found else 401, found or {"error": "invalid_token"})
            case _:
                self.answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == "/person":
            self.provider.person = json.loads(body)
            self.answer(200, {})
        elif self.path == "/token":
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self.answer(*self.provider.token(form, self.headers.get("Authorization", "")))
        else:
            self.answer(404, {})

    def answer(self, status: int, body: dict[str, Any], location: str = "") -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests read our own log."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.provider = Provider(f"http://127.0.0.1:{server.server_port}")
    sys.stdout.write(f"{Handler.provider.issuer}\n")
    sys.stdout.flush()
    server.serve_forever()
