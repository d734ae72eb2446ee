"""The tiny studies, for every test of training."""

from tests.tiny_cohorts import tiny  # noqa: F401  for every test here
