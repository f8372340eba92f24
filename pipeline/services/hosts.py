"""The machines that run children."""

from __future__ import annotations


def refusal(host_name: str) -> str:
    return ""
