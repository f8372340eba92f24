"""The escapes of real agents are tried in the shop of the end-to-end tests."""

from tests.e2e.conftest import desk, shop

__all__ = ["desk", "shop"]
