"""What two programs must agree on. No Flask, no Keras; imports none of the other packages."""
