"""What each verb does, on one machine or on a cluster."""
