"""Will a training step fit? It is compiled for devices that need not be there, and never run."""
