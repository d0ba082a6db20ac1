"""How fast a model generates, what it takes to do so, and how far the machine's own noise reaches."""
