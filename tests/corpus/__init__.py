"""Pictures good and evil, made when they are asked for, each with the answer it is to get."""
