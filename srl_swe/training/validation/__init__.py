"""Greedy replies on held-out steps, in training and after it, and the best policy by them."""
