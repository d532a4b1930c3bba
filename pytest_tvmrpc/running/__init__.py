"""How tests are run: distributed over workers, judged, and run again. Leases no device itself."""
