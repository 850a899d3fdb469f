"""Ray: sessions, nodes, workers and the pool that hands out work, signs of life."""
