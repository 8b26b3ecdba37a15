"""The article's model, its objective and its distributions."""
