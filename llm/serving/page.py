"""The chat page: one file, and the headers that let a browser run that file's own script and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from starlette.responses import Response


class Page:
    """`static/chat.html` with a Content-Security-Policy made from its own content.

    The script and the style are allowed by their hashes, so that an inline script which a model's answer
    brought in could not run even if the page did insert it; Trusted Types make such an insertion fail.
    """

    def __init__(self) -> None:
        self.html = resources.files("llm.serving").joinpath("static/chat.html").read_text(encoding="utf-8")
        self.policy = "; ".join(
            [
                "default-src 'none'",
                f"script-src {self._hashes('script')}",
                f"style-src {self._hashes('style')}",
                "img-src data:",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            ]
        )

    def response(self) -> Response:
        """The page as it goes out."""
        headers = {
            "Content-Security-Policy": self.policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "X-Frame-Options": "DENY",
        }
        return Response(self.html, headers=headers, media_type="text/html")

    def _hashes(self, tag: str) -> str:
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", self.html, re.DOTALL)
        assert bodies, f"chat.html has no <{tag}>"
        digests = (base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies)
        return " ".join(f"'sha256-{digest}'" for digest in digests)
