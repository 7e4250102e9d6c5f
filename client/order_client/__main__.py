"""``python -m order_client`` is ``orders``."""

from order_client.cli.main import main

if __name__ == "__main__":
    main(prog_name="orders")
