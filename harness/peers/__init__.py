"""Tests against the real TVMs of older ages, each on an interpreter of its own."""
