"""What attacks leave of a network: which images stay robust, how sure the accuracies are.  Never imports ray."""
