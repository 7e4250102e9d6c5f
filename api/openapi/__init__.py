"""The OpenAPI document of the HTTP API, built from the routes and the code's own bounds."""
