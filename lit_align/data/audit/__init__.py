"""What training would see of the data: a file a measure, each a table for the report and checks against limits."""
