"""What programs leave for others: checkpoints, scores, exports, and networks from elsewhere."""
