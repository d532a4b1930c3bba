"""Where protocol meets runtime: one machine asks, another does."""
