"""The farm and CI around the package: run by people and CI. Never imported by the package."""
