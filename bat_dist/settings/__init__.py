"""What can be asked of each program: one file a verb, checked without torch and ray."""
