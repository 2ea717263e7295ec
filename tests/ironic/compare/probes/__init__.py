"""Questions put to an agent directly, without a conductor: more of them, and odder ones, than any conductor asks."""
