"""A small OpenID Connect provider on a local port. It checks what a client sends, and can be told to misbehave."""

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT_ID, CLIENT_SECRET = "voicecare", "a-secret"


class OidcProvider:
    """The provider logs in whoever asks.

    `claims` are those of the user. `id_token_changes` replace claims of the ID token, None removes one. `user_info` is
    the answer of the user info endpoint. `key` signs, and `published_key` is in the key set. `errors` has what clients
    did wrong.
    """

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {"sub": "1", "preferred_username": "nora"}
        self.id_token_changes: dict[str, Any] = {}
        self.user_info: dict[str, Any] = {"sub": "1"}
        self.metadata_changes: dict[str, Any] = {}
        self.key = self.published_key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
        self.algorithm = "RS256"
        self.errors: list[str] = []
        self._grants: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if url.path == "/realm/authorize":
                    self.send_response(302)
                    self.send_header("Location", provider.authorize(query))
                    self.end_headers()
                else:
                    self.answer(provider.document(url.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                self.answer(provider.token(form, self.headers.get("Authorization", "")))

            def answer(self, document: dict[str, Any] | None) -> None:
                content = json.dumps(document or {"error": "invalid_grant"}).encode()
                self.send_response(200 if document else 400)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realm"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def authorize(self, query: dict[str, str]) -> str:
        """Return the address to which the browser is sent back."""
        expected = {"response_type": "code", "client_id": CLIENT_ID, "code_challenge_method": "S256"}
        if {name: query.get(name) for name in expected} != expected or "nonce" not in query:
            self.errors.append(f"wrong request: {query}")
        code = secrets.token_urlsafe()
        self._grants[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def document(self, path: str) -> dict[str, Any] | None:
        if path == "/realm/.well-known/openid-configuration":
            return {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "jwks_uri": f"{self.issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
                **self.metadata_changes,
            }
        if path == "/realm/keys":
            return {"keys": [self.published_key.as_dict(private=False)]}
        return self.user_info if path == "/realm/userinfo" else None

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """Return the tokens for a code, or None if the request is wrong."""
        grant = self._grants.pop(form.get("code", ""), None)
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        is_right = (
            grant is not None
            and authorization == f"Basic {basic}"
            and form.get("redirect_uri") == grant["redirect_uri"]
            and grant["code_challenge"] == base64.urlsafe_b64encode(challenge).decode().rstrip("=")
        )
        if grant is None or not is_right:
            self.errors.append("wrong token request")
            return None
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": int(time.time()),
            "exp": int(time.time()) + 300,
            "nonce": grant["nonce"],
            **self.claims,
            **self.id_token_changes,
        }
        present = {name: value for name, value in claims.items() if value is not None}
        return {"access_token": "access", "token_type": "Bearer", "id_token": self._sign(present)}

    def _sign(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.algorithm == "none":
            return jwt.encode(header, claims, OctKey.generate_key(), algorithms=["none"])
        if self.algorithm == "HS256":  # with the public key as the secret
            secret = OctKey.import_key(self.published_key.as_pem(private=False))
            return jwt.encode(header, claims, secret, algorithms=["HS256"])
        return jwt.encode(header, claims, self.key)
