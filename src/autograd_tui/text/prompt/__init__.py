"""What can be typed at the prompt, how it is read, and what is offered next."""
