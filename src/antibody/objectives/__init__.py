"""The mathematics of the method and its baselines, on torch alone."""
