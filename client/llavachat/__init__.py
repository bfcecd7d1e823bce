"""Visual chat you own: the client."""
