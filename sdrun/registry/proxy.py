"""The proxy on the way to a registry, as the environment names it."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit


def proxy_for(scheme: str, host: str) -> SplitResult | None:
    """The proxy that the environment names (HTTPS_PROXY and the like, NO_PROXY); None: straight to the host."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    named = getproxies()
    proxy = named.get(scheme) or named.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def login_of(proxy: SplitResult) -> dict[str, str]:
    """The header that logs in to the proxy; none where its address has no user."""
    if not proxy.username:
        return {}
    from urllib.parse import unquote

    from sdrun.registry.credentials import Login

    return {"Proxy-Authorization": Login(unquote(proxy.username), unquote(proxy.password or "")).basic}
