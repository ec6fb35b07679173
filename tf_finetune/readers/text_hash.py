"""The hash of a text, which decides its split wherever no split is named."""

import hashlib


def sha256_of(text: str) -> bytes:
    """Of its UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def tenth_of(digest: bytes) -> int:
    """0 to 9: which tenth of all texts one with this hash belongs to."""
    return int.from_bytes(digest, "big") % 10
