"""What estimates are worth and what follows from them: consistency, honest selection, plans, scores."""
