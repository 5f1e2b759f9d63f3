"""Files that other load testers read and write."""
