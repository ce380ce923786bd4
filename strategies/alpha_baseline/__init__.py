"""The baseline strategy: Alpha158 features and a LightGBM regression on the two-session-ahead return."""
