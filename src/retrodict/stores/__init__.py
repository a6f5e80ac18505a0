"""Where bytes live: five small contracts, their embedded twins, and the choice between twins by URL."""
