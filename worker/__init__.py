"""The worker: settles orders, and sends again those that were forgotten."""
