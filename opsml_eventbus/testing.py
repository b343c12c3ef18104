"""What a program needs to test itself against a bus."""
