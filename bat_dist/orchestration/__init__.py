"""What runs on Ray: session, worker pool, leave-out trials, ensembles.  The only room that imports ray."""
