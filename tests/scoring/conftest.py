"""The tiny studies, for every test that trains one to score it."""

from tests.tiny_cohorts import tiny  # noqa: F401  for every test here
