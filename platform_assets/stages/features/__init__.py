"""Feature views, feature schema and training sets: from protected rows to what a trainer reads."""
