"""How the embedded model `shapes` is made: pictures, dialogues, training and evaluation."""
