"""Real servers, no mocks."""
