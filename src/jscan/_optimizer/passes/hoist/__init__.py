"""Work that does not depend on the state leaves the loop before it begins."""
