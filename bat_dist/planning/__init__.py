"""What a job will cost, from one measurement.  No ray."""
