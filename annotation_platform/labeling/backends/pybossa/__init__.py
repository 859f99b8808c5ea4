"""PyBossa's exports as vendor annotations."""
