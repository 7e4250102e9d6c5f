"""The only place that speaks DynamoDB: one table, its keys, its items and its transactions."""
