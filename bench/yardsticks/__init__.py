"""What the product is compared with: small programs that share its engines and its settings."""
