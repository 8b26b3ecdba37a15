"""A benchmark: methods, label budgets and folds, trained and tested under the same conditions."""
