"""How one block of trials is trained: masks and seeds in, correctness bits out."""
