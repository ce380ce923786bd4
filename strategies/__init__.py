"""Research code shared by training and serving: bars, features, models, weights."""
