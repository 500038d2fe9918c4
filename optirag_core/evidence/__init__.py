"""What interactions say about a user, an item and the item's attributes, and a regression on it."""
