"""Commands for operators: ``python -m ops``. Thin: what they do stands in ``shared``."""
