"""What many runs found, put side by side: finding their folders, comparing methods, the paper's numbers.  No ray."""
