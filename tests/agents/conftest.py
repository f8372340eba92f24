from tests.e2e.conftest import shop as shop  # a fixture here too
