"""Methods, budgets of labels and folds, trained and tested alike: rows of one table."""
